//! Images, videos and audio of a request: encoded here for others, or taken from an engine that did.

use std::sync::Arc;

use super::Failed;
use crate::api::ApiError;
use crate::args::EncodingSettings;
use crate::transfer::encodings::{self, EncoderCache, Encodings};

/// What one engine does with media.
pub(crate) struct Media {
    /// `None`: the model takes text only.
    pub(crate) settings: Option<EncodingSettings>,
    /// Port on which others ask; 0 where they cannot.
    pub(crate) port: u16,
    /// What was encoded here.
    pub(crate) cache: Arc<EncoderCache>,
}

impl Media {
    /// Refuses media where nothing encodes them.
    pub(super) fn check(&self, media: &[String]) -> Result<(), ApiError> {
        if media.is_empty() || self.settings.is_some() {
            return Ok(());
        }
        let message =
            "media are not supported: the model takes text only; --ec-transfer-config simulates an encoder";
        Err(ApiError::field("messages", message))
    }

    /// Takes the media of a request in; gives what its answer says about them.
    pub(super) async fn take(
        &self,
        media: &[String],
        elsewhere: Option<&Encodings>,
    ) -> Result<Option<Encodings>, Failed> {
        self.check(media)?;
        let Some(settings) = &self.settings else {
            let message =
                "ec_transfer_params: this engine has no encoder cache; start it with --ec-transfer-config";
            let refused = ApiError::field("ec_transfer_params", message);
            return elsewhere.map_or(Ok(None), |_| Err(refused.into()));
        };
        for (hash, from) in elsewhere.into_iter().flatten() {
            let fetched = encodings::fetch(hash, from).await;
            fetched.map_err(|problem| Failed::Api(ApiError::new(500, "InternalServerError", problem)))?;
        }
        for hash in media {
            self.cache.insert(hash);
        }
        if media.is_empty() || !settings.gives() {
            return Ok(None);
        }
        Ok(Some(encodings::answered(media, &settings.host, self.port)))
    }
}
