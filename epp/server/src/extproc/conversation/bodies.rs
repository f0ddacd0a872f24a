//! Which bodies Envoy sends, as it says in its first message.

use tonic::Status;

use super::super::proto::{BodySendMode, ProtocolConfiguration};

/// Whether bodies are sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bodies {
    pub(super) request: bool,
    pub(super) response: bool,
}

impl Default for Bodies {
    /// What an Envoy sends that says nothing.
    fn default() -> Self {
        Self {
            request: true,
            response: true,
        }
    }
}

impl Bodies {
    /// # Errors
    /// A filter configuration in which Envoy would wait for us, and we for it, with what is wrong in it.
    pub(super) fn of(config: &ProtocolConfiguration) -> Result<Self, Status> {
        let is_sent = |field: &str, mode: i32| match BodySendMode::try_from(mode) {
            Ok(BodySendMode::FullDuplexStreamed) => Ok(true),
            Ok(BodySendMode::None) => Ok(false),
            _ => {
                let text =
                    format!("ext_proc processing_mode.{field} is {mode}, set it to FULL_DUPLEX_STREAMED");
                Err(Status::failed_precondition(text))
            }
        };
        Ok(Self {
            request: is_sent("request_body_mode", config.request_body_mode)?,
            response: is_sent("response_body_mode", config.response_body_mode)?,
        })
    }
}
