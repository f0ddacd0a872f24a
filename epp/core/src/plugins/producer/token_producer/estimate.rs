//! How many tokens media are worth, and what stands for them among the bytes of a prompt.
//!
//! | parameter of `estimate` | default |
//! |---|---|
//! | `image.mode` | `dynamic`: width · height / factor, at least 1; `static` |
//! | `image.defaultResolution` {`width`, `height`} | 640 × 360, for images that are not in the request as PNG, JPEG or GIF |
//! | `image.dynamic.factor`, `image.static.staticToken` | 1024, 1 |
//! | `video.defaultResolution`, `video.defaultDuration` | 640 × 360, 10 s; the headers `x-llm-d-video-…` win |
//! | `video.tokensPerFrame.mode` | `dynamic`, with `dynamic.factor` 1024; `static`, with `static.numTokensPerFrame` 1 |
//! | `video.frames.mode` | `sampled`: duration · `sampled.sampleFPS` (2), after the clamp over `sampled.temporalPatchSize`; `strided`: duration · frames per second (`strided.defaultSourceFPS` 24) over `strided.frameStride` (1) |
//! | `video.frames.minFrames`, `maxFrames` | 0: no limit |
//! | `video.maxVideoTokens` | 0: no limit |
//!
//! Audio is a token per four bytes of its data. Each medium begins at a whole token and is so many copies of the low 32
//! bits of the xxh64 of its content.

mod video;

use llmd_epp_api::attribute::MediaFeature;
use llmd_epp_api::{BuildError, Headers, MediaPart, Modality};
use llmd_kv::BYTES_PER_TOKEN;
use serde::Deserialize;

use video::Video;

/// Tokens of all media of a request together: clients say how large a video is.
const MOST_TOKENS: u64 = 1 << 20;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Estimate {
    image: Image,
    video: Video,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Dynamic,
    Static,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolution {
    width: u32,
    height: u32,
}

impl Default for Resolution {
    fn default() -> Self {
        Self {
            width: 640,
            height: 360,
        }
    }
}

impl Resolution {
    fn tokens(self, factor: u32) -> u64 {
        (u64::from(self.width) * u64::from(self.height) / u64::from(factor)).max(1)
    }

    fn check(self, field: &str) -> Result<(), BuildError> {
        positive(field, &[("width", self.width), ("height", self.height)])
    }
}

fn positive(parent: &str, values: &[(&str, u32)]) -> Result<(), BuildError> {
    match values.iter().find(|(_, value)| *value == 0) {
        None => Ok(()),
        Some((field, _)) => {
            let path = format!("estimate.{parent}.{field}");
            Err(BuildError::value(&path, "must be greater than 0"))
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Dynamic {
    factor: u32,
}

impl Default for Dynamic {
    fn default() -> Self {
        Self { factor: 1024 }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Image {
    mode: Mode,
    default_resolution: Resolution,
    r#static: StaticImage,
    dynamic: Dynamic,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct StaticImage {
    static_token: u32,
}

impl Default for StaticImage {
    fn default() -> Self {
        Self { static_token: 1 }
    }
}

impl Image {
    fn tokens(&self, size: Option<(u32, u32)>) -> u64 {
        let size = size.map_or(self.default_resolution, |(width, height)| Resolution {
            width,
            height,
        });
        match self.mode {
            Mode::Dynamic => size.tokens(self.dynamic.factor),
            Mode::Static => self.r#static.static_token.into(),
        }
    }
}

impl Estimate {
    pub(super) fn check(&self) -> Result<(), BuildError> {
        let image = &self.image;
        image.default_resolution.check("image.defaultResolution")?;
        positive("image.dynamic", &[("factor", image.dynamic.factor)])?;
        positive("image.static", &[("staticToken", image.r#static.static_token)])?;
        self.video.check()
    }

    fn of(&self, medium: &MediaPart, headers: &Headers) -> u64 {
        match medium.modality {
            Modality::Image => self.image.tokens(medium.size),
            Modality::Video => self.video.tokens(headers),
            Modality::Audio => medium.bytes.div_ceil(BYTES_PER_TOKEN).max(1) as u64,
        }
    }

    /// The bytes of a prompt with its media among them, and where they are.
    pub(super) fn tokens(
        &self,
        text: &[u8],
        media: &[MediaPart],
        headers: &Headers,
    ) -> (Vec<u8>, Vec<MediaFeature>) {
        let mut left = MOST_TOKENS;
        let lengths: Vec<u64> = media
            .iter()
            .map(|medium| {
                let length = self.of(medium, headers).min(left);
                left -= length;
                length
            })
            .collect();
        let of_media = (MOST_TOKENS - left) as usize + media.len();
        let mut bytes = Vec::with_capacity(text.len() + of_media * BYTES_PER_TOKEN);
        let mut features = Vec::with_capacity(media.len());
        let mut from = 0;
        for (medium, length) in media.iter().zip(lengths) {
            let at = medium.at.clamp(from, text.len());
            bytes.extend_from_slice(&text[from..at]);
            from = at;
            bytes.resize(bytes.len().next_multiple_of(BYTES_PER_TOKEN), 0);
            features.push(MediaFeature {
                modality: medium.modality.as_str().into(),
                hash: format!("{:x}", medium.hash).into(),
                offset: (bytes.len() / BYTES_PER_TOKEN) as u64,
                length,
            });
            let token = (medium.hash as u32).to_le_bytes();
            bytes.extend((0..length).flat_map(|_| token));
        }
        bytes.extend_from_slice(&text[from..]);
        (bytes, features)
    }
}
