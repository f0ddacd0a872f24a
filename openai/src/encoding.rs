//! Compressed request bodies (`Content-Encoding`, RFC 9110 §8.4; zstd: RFC 8878).

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

/// Bytes decoded at a time.
const PIECE: usize = 64 * 1024;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// gzip; `x-gzip` is its older name.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// An encoding that is not read, with its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("content-encoding '{0}' is not supported; send the body as it is, or with gzip or zstd")]
pub struct UnknownEncoding(pub String);

/// Why a body cannot be decoded. Texts go to the client.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError<E> {
    /// Not what the header says.
    #[error("the request body is not valid {encoding}: {source}")]
    Corrupt {
        /// Name of the encoding.
        encoding: &'static str,
        /// What the decoder says.
        source: io::Error,
    },
    /// Who takes the pieces wants no more.
    #[error(transparent)]
    Refused(E),
}

impl Encoding {
    /// The encoding that a header names; `None` for a body that is sent as it is.
    pub fn of_header(value: &str) -> Result<Option<Self>, UnknownEncoding> {
        let value = value.trim();
        if value.is_empty() || value.eq_ignore_ascii_case("identity") {
            return Ok(None);
        }
        if value.eq_ignore_ascii_case("gzip") || value.eq_ignore_ascii_case("x-gzip") {
            return Ok(Some(Self::Gzip));
        }
        if value.eq_ignore_ascii_case("zstd") {
            return Ok(Some(Self::Zstd));
        }
        Err(UnknownEncoding(value.chars().take(64).collect()))
    }

    /// The name in headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Decodes `body` and gives it to `take` in pieces, so that a bomb ends as soon as `take` refuses.
    ///
    /// # Errors
    /// When the body is corrupt or `take` refuses a piece.
    pub fn decode<E>(
        self,
        body: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), DecodeError<E>> {
        let corrupt = |source| DecodeError::Corrupt {
            encoding: self.as_str(),
            source,
        };
        match self {
            Self::Gzip => pump(MultiGzDecoder::new(body), &corrupt, &mut take),
            Self::Zstd => {
                let mut rest = body;
                // A body may be several frames one after the other.
                while !rest.is_empty() {
                    let mut frame = StreamingDecoder::new(&mut rest)
                        .map_err(|error| corrupt(io::Error::other(error.to_string())))?;
                    pump(&mut frame, &corrupt, &mut take)?;
                }
                Ok(())
            }
        }
    }
}

fn pump<E>(
    mut decoder: impl Read,
    corrupt: &impl Fn(io::Error) -> DecodeError<E>,
    take: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), DecodeError<E>> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = decoder.read(&mut piece).map_err(corrupt)?;
        if read == 0 {
            return Ok(());
        }
        take(&piece[..read]).map_err(DecodeError::Refused)?;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn compressed(encoding: Encoding, text: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Zstd => compress_to_vec(text, CompressionLevel::Fastest),
        }
    }

    fn decoded(encoding: Encoding, body: &[u8]) -> Result<Vec<u8>, DecodeError<Infallible>> {
        let mut whole = Vec::new();
        encoding.decode(body, |piece| {
            whole.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(whole)
    }

    #[test]
    fn both_encodings_come_back_also_in_several_parts() {
        let text = "a long body ".repeat(20_000);
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let body = compressed(encoding, text.as_bytes());
            assert!(body.len() < text.len() / 10);
            assert_eq!(decoded(encoding, &body).unwrap(), text.as_bytes(), "{encoding:?}");
            let parts = [compressed(encoding, b"one "), compressed(encoding, b"two")].concat();
            assert_eq!(decoded(encoding, &parts).unwrap(), b"one two", "{encoding:?}");
            assert_eq!(decoded(encoding, &compressed(encoding, b"")).unwrap(), b"");
        }
    }

    #[test]
    fn what_is_corrupt_or_cut_off_is_refused() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let body = compressed(encoding, "a long body ".repeat(2_000).as_bytes());
            for wrong in [&b"{\"model\":\"m\"}"[..], &body[..body.len() / 2]] {
                let error = decoded(encoding, wrong).unwrap_err().to_string();
                assert!(error.contains(encoding.as_str()), "{error}");
            }
        }
    }

    #[test]
    fn a_bomb_ends_where_the_taker_stops() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let body = compressed(encoding, &vec![0; 32 << 20]);
            let mut taken = 0;
            let outcome = encoding.decode(&body, |piece| {
                taken += piece.len();
                if taken > 1 << 20 { Err("enough") } else { Ok(()) }
            });
            assert!(matches!(outcome, Err(DecodeError::Refused("enough"))));
            assert!(taken <= (1 << 20) + (256 << 10), "{taken}");
        }
    }

    #[test]
    fn headers_name_encodings() {
        assert_eq!(Encoding::of_header("GZIP"), Ok(Some(Encoding::Gzip)));
        assert_eq!(Encoding::of_header(" zstd "), Ok(Some(Encoding::Zstd)));
        assert_eq!(Encoding::of_header("identity"), Ok(None));
        assert_eq!(Encoding::of_header(""), Ok(None));
        for unknown in ["br", "gzip, gzip"] {
            let error = Encoding::of_header(unknown).unwrap_err().to_string();
            assert!(error.contains(unknown) && error.contains("zstd"), "{error}");
        }
    }
}
