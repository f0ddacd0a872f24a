//! The request body on its way in: counted, capped and scanned by the parser its path names.

use llmd_epp_api::{ErrorCode, Headers, Rejection};
use llmd_openai::{Limits, RequestFacts, RequestScanner, ScanError};

use super::path_of;
use crate::parsers::Parsers;

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
    },
    Unread,
    Unclaimed {
        path: Box<str>,
    },
}

/// A complete request body.
pub(super) struct Parsed {
    pub(super) facts: RequestFacts,
    pub(super) size_bytes: usize,
    /// Whether the body is of a kind that names a model.
    pub(super) has_model: bool,
}

impl Intake {
    pub(super) fn new(parsers: &Parsers, headers: &Headers, limits: Limits) -> Self {
        let path = path_of(headers);
        let reader = match parsers.resolve(path) {
            None => Reader::Unclaimed { path: path.into() },
            Some(claim) => match claim.body {
                Some(kind) => Reader::Scan {
                    scanner: Box::new(RequestScanner::new(kind, limits)),
                    names_model: kind.names_model(),
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

    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), Rejection> {
        self.bytes = self.bytes.saturating_add(chunk.len());
        if self.bytes > self.max_bytes {
            return Err(refused(&ScanError::TooLarge {
                limit: self.max_bytes,
            }));
        }
        match &mut self.reader {
            Reader::Scan { scanner, .. } => scanner.push(chunk).map_err(|error| refused(&error)),
            Reader::Unread | Reader::Unclaimed { .. } => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Result<Parsed, Rejection> {
        let Self {
            reader,
            bytes,
            method_has_body,
            ..
        } = self;
        let is_bodiless = bytes == 0 && !method_has_body;
        let (facts, has_model) = match reader {
            _ if is_bodiless => (RequestFacts::default(), false),
            Reader::Scan { scanner, names_model } => {
                (scanner.finish().map_err(|error| refused(&error))?, names_model)
            }
            Reader::Unread => (RequestFacts::default(), false),
            Reader::Unclaimed { path } => {
                let message = format!("no parser registered matching path suffix for: {path}");
                return Err(Rejection::new(ErrorCode::BadRequest, message));
            }
        };
        Ok(Parsed {
            facts,
            size_bytes: bytes,
            has_model,
        })
    }
}

fn refused(error: &ScanError) -> Rejection {
    let code = match error {
        ScanError::TooLarge { .. } => ErrorCode::PayloadTooLarge,
        _ => ErrorCode::BadRequest,
    };
    Rejection::new(code, error.to_string())
}
