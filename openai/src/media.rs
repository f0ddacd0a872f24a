//! Images, videos and audio in a request: what of them is needed to tell two apart and to estimate their size.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use xxhash_rust::xxh64::Xxh64;

/// Bytes of a content that are kept to find an image's size; a multiple of 4. Cameras write previews of up to 64 KiB
/// before it.
const HEAD: usize = 96 * 1024;
/// Longest name of an audio format that is kept.
const FORMAT: usize = 64;
const SEED: u64 = 0;

/// Kind of a content that is not text (vLLM's names).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Modality {
    /// `image_url`.
    Image,
    /// `video_url`.
    Video,
    /// `input_audio`.
    Audio,
}

impl Modality {
    /// The name that engines and caches use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }
}

/// One image, video or audio of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaPart {
    /// What it is.
    pub modality: Modality,
    /// Bytes of the prompt's text before it.
    pub at: usize,
    /// xxh64 of its URL, or of data and format of audio.
    pub hash: u64,
    /// Bytes of its URL or data.
    pub bytes: usize,
    /// Width and height in pixels of an image that is in the request itself as PNG, JPEG or GIF.
    pub size: Option<(u32, u32)>,
}

/// Reads one content as its pieces arrive.
pub(crate) struct MediaReader {
    modality: Modality,
    hasher: Xxh64,
    bytes: usize,
    head: Vec<u8>,
    format: Vec<u8>,
}

impl std::fmt::Debug for MediaReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MediaReader")
            .field("modality", &self.modality)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl MediaReader {
    pub(crate) fn new(modality: Modality) -> Self {
        Self {
            modality,
            hasher: Xxh64::new(SEED),
            bytes: 0,
            head: Vec::new(),
            format: Vec::new(),
        }
    }

    /// Another URL or other data takes the place of what was read.
    pub(crate) fn restart(&mut self) {
        self.hasher.reset(SEED);
        self.bytes = 0;
        self.head.clear();
    }

    pub(crate) fn content(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.bytes += piece.len();
        if self.modality == Modality::Image {
            let room = HEAD - self.head.len();
            self.head.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    /// A second format takes the place of the first.
    pub(crate) fn format_starts(&mut self) {
        self.format.clear();
    }

    pub(crate) fn format(&mut self, piece: &[u8]) {
        let room = FORMAT - self.format.len();
        self.format.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// The content is complete and stands at byte `at` of the prompt's text.
    pub(crate) fn finish(mut self, at: usize) -> MediaPart {
        self.hasher.update(&self.format);
        MediaPart {
            modality: self.modality,
            at,
            hash: self.hasher.digest(),
            bytes: self.bytes,
            size: image_size(&self.head),
        }
    }
}

/// Width and height of the image in a `data:` URL of which this is the beginning.
fn image_size(url: &[u8]) -> Option<(u32, u32)> {
    let inline = url.strip_prefix(b"data:image/")?;
    let comma = memchr::memchr(b',', inline)?;
    inline[..comma].ends_with(b";base64").then_some(())?;
    let data = &inline[comma + 1..];
    // Whole groups need no padding, also where the head was cut.
    let image = STANDARD.decode(&data[..data.len() - data.len() % 4]).ok()?;
    png(&image).or_else(|| gif(&image)).or_else(|| jpeg(&image))
}

fn big_endian(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn png(image: &[u8]) -> Option<(u32, u32)> {
    let header = image.strip_prefix(b"\x89PNG\r\n\x1a\n")?.get(4..16)?;
    let size = header.strip_prefix(b"IHDR")?;
    Some((big_endian(&size[..4]), big_endian(&size[4..])))
}

fn gif(image: &[u8]) -> Option<(u32, u32)> {
    let size = image.strip_prefix(b"GIF8")?.get(2..6)?;
    let of = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]));
    Some((of(size[0], size[1]), of(size[2], size[3])))
}

/// The first frame header (ITU-T T.81, B.2.2); segments before it are passed over.
fn jpeg(image: &[u8]) -> Option<(u32, u32)> {
    let mut rest = image.strip_prefix(b"\xff\xd8")?;
    loop {
        let marker = *rest.strip_prefix(b"\xff")?.first()?;
        if marker == 0xff {
            rest = &rest[1..];
            continue;
        }
        let segment = rest.get(2..)?;
        // 0xc4, 0xc8 and 0xcc stand among the frame headers but are none.
        if (0xc0..=0xcf).contains(&marker) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            let size = segment.get(3..7)?;
            return Some((big_endian(&size[2..]), big_endian(&size[..2])));
        }
        let length = big_endian(segment.get(..2)?) as usize;
        rest = segment.get(length.max(2)..)?;
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh64::xxh64;

    use super::*;

    fn size_of(image: &[u8]) -> Option<(u32, u32)> {
        image_size(format!("data:image/any;base64,{}", STANDARD.encode(image)).as_bytes())
    }

    #[test]
    fn sizes_are_read_from_the_headers_of_each_format() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x05\0\0\0\x02\xd0\x08\x02";
        assert_eq!(size_of(png), Some((1280, 720)));
        assert_eq!(size_of(b"GIF89a\x80\x02\x68\x01\0"), Some((640, 360)));
        let jpeg = b"\xff\xd8\xff\xe0\0\x04JF\xff\xff\xc4\0\x03x\xff\xc2\0\x11\x08\x01\x68\x02\x80\x03";
        assert_eq!(size_of(jpeg), Some((640, 360)));
        for cut in [&png[..20], &jpeg[..20], b"BM\0\0", b""] {
            assert_eq!(size_of(cut), None);
        }
        assert_eq!(image_size(b"https://example.com/a.png"), None);
        assert_eq!(image_size(b"data:image/png,raw"), None);
    }

    #[test]
    fn pieces_and_the_format_make_one_hash() {
        let mut audio = MediaReader::new(Modality::Audio);
        audio.format(b"wav");
        audio.content(b"dropped");
        audio.restart();
        audio.content(b"AAA");
        audio.content(b"ABC");
        let part = audio.finish(7);
        assert_eq!((part.hash, part.bytes, part.at), (xxh64(b"AAAABCwav", 0), 6, 7));
        assert_eq!(part.size, None);
    }
}
