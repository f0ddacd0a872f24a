//! Tokens of a video: frames times tokens per frame.

use llmd_epp_api::{BuildError, Headers};
use llmd_openai::header;
use serde::Deserialize;

use super::{Dynamic, Mode, Resolution, positive};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Video {
    default_resolution: Resolution,
    /// Seconds.
    default_duration: f64,
    tokens_per_frame: TokensPerFrame,
    frames: Frames,
    max_video_tokens: u32,
}

impl Default for Video {
    fn default() -> Self {
        Self {
            default_resolution: Resolution::default(),
            default_duration: 10.0,
            tokens_per_frame: TokensPerFrame::default(),
            frames: Frames::default(),
            max_video_tokens: 0,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TokensPerFrame {
    mode: Mode,
    r#static: StaticFrame,
    dynamic: Dynamic,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct StaticFrame {
    num_tokens_per_frame: u32,
}

impl Default for StaticFrame {
    fn default() -> Self {
        Self {
            num_tokens_per_frame: 1,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum FrameMode {
    #[default]
    Sampled,
    Strided,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Frames {
    mode: FrameMode,
    #[serde(rename = "minFrames")]
    least: u32,
    #[serde(rename = "maxFrames")]
    most: u32,
    sampled: Sampled,
    strided: Strided,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Sampled {
    #[serde(rename = "sampleFPS")]
    sample_fps: f64,
    temporal_patch_size: u32,
}

impl Default for Sampled {
    fn default() -> Self {
        Self {
            sample_fps: 2.0,
            temporal_patch_size: 0,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Strided {
    #[serde(rename = "defaultSourceFPS")]
    default_source_fps: f64,
    frame_stride: u32,
}

impl Default for Strided {
    fn default() -> Self {
        Self {
            default_source_fps: 24.0,
            frame_stride: 1,
        }
    }
}

/// A number of the client, where it makes sense.
fn above_zero(headers: &Headers, name: &str) -> Option<f64> {
    let value: f64 = headers.get(name)?.trim().parse().ok()?;
    (value > 0.0 && value.is_finite()).then_some(value)
}

/// `WxH`.
fn resolution(headers: &Headers) -> Option<Resolution> {
    let (width, height) = headers
        .get(header::VIDEO_RESOLUTION)?
        .trim()
        .split_once(['x', 'X'])?;
    let (width, height) = (width.parse().ok()?, height.parse().ok()?);
    (width > 0 && height > 0).then_some(Resolution { width, height })
}

impl Frames {
    fn clamped(&self, frames: u64) -> u64 {
        let most = if self.most == 0 {
            u64::MAX
        } else {
            self.most.into()
        };
        frames.max(self.least.into()).min(most)
    }

    fn number(&self, duration: f64, headers: &Headers) -> u64 {
        match self.mode {
            FrameMode::Sampled => {
                let frames = self.clamped((duration * self.sampled.sample_fps) as u64);
                match self.sampled.temporal_patch_size {
                    0 | 1 => frames,
                    size => frames / u64::from(size),
                }
            }
            FrameMode::Strided => {
                let fps = above_zero(headers, header::VIDEO_FPS).unwrap_or(self.strided.default_source_fps);
                self.clamped((duration * fps) as u64 / u64::from(self.strided.frame_stride))
            }
        }
    }
}

impl Video {
    pub(super) fn tokens(&self, headers: &Headers) -> u64 {
        let duration = above_zero(headers, header::VIDEO_DURATION_SECONDS).unwrap_or(self.default_duration);
        let frame = match self.tokens_per_frame.mode {
            Mode::Static => self.tokens_per_frame.r#static.num_tokens_per_frame.into(),
            Mode::Dynamic => resolution(headers)
                .unwrap_or(self.default_resolution)
                .tokens(self.tokens_per_frame.dynamic.factor),
        };
        let tokens = self.frames.number(duration, headers).saturating_mul(frame).max(1);
        match self.max_video_tokens {
            0 => tokens,
            most => tokens.min(most.into()),
        }
    }

    pub(super) fn check(&self) -> Result<(), BuildError> {
        let Self {
            default_resolution,
            default_duration,
            tokens_per_frame,
            frames,
            max_video_tokens: _,
        } = self;
        default_resolution.check("video.defaultResolution")?;
        let factor = tokens_per_frame.dynamic.factor;
        positive("video.tokensPerFrame.dynamic", &[("factor", factor)])?;
        let number = tokens_per_frame.r#static.num_tokens_per_frame;
        positive("video.tokensPerFrame.static", &[("numTokensPerFrame", number)])?;
        let stride = frames.strided.frame_stride;
        positive("video.frames.strided", &[("frameStride", stride)])?;
        for (field, value) in [
            ("defaultDuration", *default_duration),
            ("frames.sampled.sampleFPS", frames.sampled.sample_fps),
            (
                "frames.strided.defaultSourceFPS",
                frames.strided.default_source_fps,
            ),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                let path = format!("estimate.video.{field}");
                return Err(BuildError::value(&path, "must be greater than 0"));
            }
        }
        if frames.most > 0 && frames.most < frames.least {
            let reason = "must not be below minFrames";
            return Err(BuildError::value("estimate.video.frames.maxFrames", reason));
        }
        Ok(())
    }
}
