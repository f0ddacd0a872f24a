//! The request body on its way in: counted, capped, decoded and scanned by the parser its path names.

use bytes::Bytes;
use llmd_epp_api::{ErrorCode, Headers, Rejection};
use llmd_openai::{DecodeError, Encoding, Limits, RequestFacts, RequestScanner, ScanError, UnknownEncoding};

use super::path_of;
use crate::parsers::Parsers;

/// Most memory that is taken because a client says that its body is so long, in bytes.
const MOST_DECLARED: usize = 1 << 20;

/// State of one request body.
pub(super) struct Intake {
    reader: Reader,
    bytes: usize,
    max_bytes: usize,
    method_has_body: bool,
}

enum Reader {
    Scan {
        scanner: Box<RequestScanner>,
        names_model: bool,
        compressed: Option<Compressed>,
    },
    Unread,
    Unclaimed {
        path: Box<str>,
    },
    Unreadable(UnknownEncoding),
}

/// A compressed body is kept whole: it is scanned at its end.
struct Compressed {
    encoding: Encoding,
    body: Vec<u8>,
}

/// A complete request body.
pub(super) struct Parsed {
    pub(super) facts: RequestFacts,
    pub(super) size_bytes: usize,
    /// Whether the body is of a kind that names a model.
    pub(super) has_model: bool,
    /// What a compressed body says.
    pub(super) decoded: Option<Bytes>,
}

impl Parsed {
    fn unread(size_bytes: usize) -> Self {
        Self {
            facts: RequestFacts::default(),
            size_bytes,
            has_model: false,
            decoded: None,
        }
    }
}

impl Intake {
    pub(super) fn new(parsers: &Parsers, headers: &Headers, limits: Limits) -> Self {
        let path = path_of(headers);
        let declared = headers
            .get("content-length")
            .and_then(|length| length.parse().ok());
        let declared = declared.unwrap_or(0);
        let reader = match parsers.resolve(path) {
            None => Reader::Unclaimed { path: path.into() },
            Some(claim) => match claim.body {
                Some(kind) => match headers
                    .get("content-encoding")
                    .map_or(Ok(None), Encoding::of_header)
                {
                    Ok(encoding) => Reader::Scan {
                        scanner: Box::new(
                            RequestScanner::new(kind, limits).expecting(declared.min(MOST_DECLARED)),
                        ),
                        names_model: kind.names_model(),
                        compressed: encoding.map(|encoding| Compressed {
                            encoding,
                            body: Vec::new(),
                        }),
                    },
                    Err(unknown) => Reader::Unreadable(unknown),
                },
                None => Reader::Unread,
            },
        };
        let method_has_body = headers.get(":method").is_some_and(|method| method == "POST");
        Self {
            reader,
            bytes: 0,
            max_bytes: limits.max_bytes,
            method_has_body,
        }
    }

    /// Whether anything of the body is needed before the request can be routed.
    pub(super) fn reads_body(&self) -> bool {
        !matches!(self.reader, Reader::Unread)
    }

    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), Rejection> {
        self.bytes = self.bytes.saturating_add(chunk.len());
        if self.bytes > self.max_bytes {
            return Err(refused(&ScanError::TooLarge {
                limit: self.max_bytes,
            }));
        }
        match &mut self.reader {
            Reader::Scan {
                compressed: Some(compressed),
                ..
            } => {
                compressed.body.extend_from_slice(chunk);
                Ok(())
            }
            Reader::Scan { scanner, .. } => scanner.push(chunk).map_err(|error| refused(&error)),
            Reader::Unreadable(unknown) if !chunk.is_empty() => Err(Rejection::new(
                ErrorCode::UnsupportedMediaType,
                unknown.to_string(),
            )),
            Reader::Unread | Reader::Unclaimed { .. } | Reader::Unreadable(_) => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Result<Parsed, Rejection> {
        let Self {
            reader,
            bytes,
            method_has_body,
            ..
        } = self;
        match reader {
            _ if bytes == 0 && !method_has_body => Ok(Parsed::unread(bytes)),
            Reader::Scan {
                mut scanner,
                names_model,
                compressed,
            } => {
                let decoded = compressed
                    .map(|compressed| compressed.scan_into(&mut scanner))
                    .transpose()?;
                Ok(Parsed {
                    facts: scanner.finish().map_err(|error| refused(&error))?,
                    size_bytes: bytes,
                    has_model: names_model,
                    decoded,
                })
            }
            Reader::Unread | Reader::Unreadable(_) => Ok(Parsed::unread(bytes)),
            Reader::Unclaimed { path } => {
                let message = format!("no parser registered matching path suffix for: {path}");
                Err(Rejection::new(ErrorCode::BadRequest, message))
            }
        }
    }
}

impl Compressed {
    /// The limits of the scanner end a body that becomes too large.
    fn scan_into(self, scanner: &mut RequestScanner) -> Result<Bytes, Rejection> {
        let mut whole = Vec::new();
        let outcome = self.encoding.decode(&self.body, |piece| {
            scanner.push(piece)?;
            whole.extend_from_slice(piece);
            Ok::<_, ScanError>(())
        });
        match outcome {
            Ok(()) => Ok(whole.into()),
            Err(DecodeError::Refused(error)) => Err(refused(&error)),
            Err(error) => Err(Rejection::new(ErrorCode::BadRequest, error.to_string())),
        }
    }
}

fn refused(error: &ScanError) -> Rejection {
    let code = match error {
        ScanError::TooLarge { .. } => ErrorCode::PayloadTooLarge,
        _ => ErrorCode::BadRequest,
    };
    Rejection::new(code, error.to_string())
}
