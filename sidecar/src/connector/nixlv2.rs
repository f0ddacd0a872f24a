//! Connector `nixlv2`: the prefill engine keeps the blocks, the decode engine reads them by NIXL.
//!
//! The prefill leg asks for one token and for a remote decode; what its answer says in `kv_transfer_params` goes into
//! the decode leg as it is. Source: llm-d-router `pkg/sidecar/proxy/connector_nixlv2.go`; vLLM `NixlConnector`.

use std::borrow::Cow;

use bytes::Bytes;
use llmd_openai::{Edit, EditError, edit};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::PARAMS;
use crate::api::Api;

const REMOTE_DECODE: &str = r#"{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}"#;

/// The body of the prefill leg; `source` is a peer that has blocks of the prompt, which vLLM's `MultiConnector`
/// hands to its `OffloadingConnector`.
pub(crate) fn prefill(body: &[Bytes], api: Api, source: Option<Value>) -> Result<Vec<Bytes>, EditError> {
    let params = match source {
        None => Cow::Borrowed(REMOTE_DECODE),
        Some(source) => {
            let open = &REMOTE_DECODE[..REMOTE_DECODE.len() - 1];
            Cow::Owned(format!("{open},\"remote_kv_source\":{source}}}"))
        }
    };
    let edits: Vec<Edit<'_>> = api.one_token().chain([Edit::set(&[PARAMS], &params)]).collect();
    edit(body, &edits)
}

/// What a prefill engine answers, as far as the decode leg needs it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Prefilled<'a> {
    #[serde(borrow)]
    kv_transfer_params: Option<&'a RawValue>,
    usage: Option<Usage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    prompt_tokens_details: Option<Details>,
    input_tokens_details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u64>,
}

impl<'a> Prefilled<'a> {
    /// Reads an answer; one that is no JSON says nothing.
    pub(crate) fn read(answer: &'a [u8]) -> Self {
        serde_json::from_slice(answer).unwrap_or_default()
    }

    /// Where the blocks are.
    pub(crate) fn params(&self) -> Option<&'a RawValue> {
        self.kv_transfer_params
    }

    /// Prompt tokens that the prefill engine had already; 0 when it does not say.
    pub(crate) fn cached_tokens(&self) -> u64 {
        let usage = self.usage.as_ref();
        let details = usage.and_then(|usage| {
            usage
                .prompt_tokens_details
                .as_ref()
                .or(usage.input_tokens_details.as_ref())
        });
        details.and_then(|details| details.cached_tokens).unwrap_or(0)
    }

    /// The body of the decode leg.
    pub(crate) fn decode(&self, body: &[Bytes]) -> Result<Vec<Bytes>, EditError> {
        match self.kv_transfer_params {
            Some(params) => edit(body, &[Edit::set(&[PARAMS], params.get())]),
            None => Ok(body.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: Result<Vec<Bytes>, EditError>) -> String {
        String::from_utf8(body.expect("an object").concat()).expect("text")
    }

    #[test]
    fn the_prefill_leg_asks_for_one_token_and_keeps_the_rest_byte_for_byte() {
        let body = [Bytes::from_static(
            br#"{"model":"m", "messages":[{"max_tokens":9}],"stream":true,"stream_options":{"include_usage":true},"seed":12345678901234567890}"#,
        )];
        assert_eq!(
            text(prefill(&body, Api::ChatCompletions, None)),
            format!(
                r#"{{"model":"m", "messages":[{{"max_tokens":9}}],"stream":false,"stream_options":null,"seed":12345678901234567890,"max_tokens":1,"max_completion_tokens":1,"min_tokens":1,"kv_transfer_params":{REMOTE_DECODE}}}"#
            )
        );
        let body = [Bytes::from_static(
            br#"{"token_ids":[1],"sampling_params":{"max_tokens":7}}"#,
        )];
        assert_eq!(
            text(prefill(&body, Api::Generate, None)),
            format!(
                r#"{{"token_ids":[1],"sampling_params":{{"max_tokens":1,"min_tokens":1}},"stream":false,"kv_transfer_params":{REMOTE_DECODE}}}"#
            )
        );
    }

    #[test]
    fn a_peer_with_blocks_is_named_beside_the_transfer() {
        let body = [Bytes::from_static(b"{}")];
        let source = serde_json::json!({"remote_port": 7777});
        let leg = text(prefill(&body, Api::Completions, Some(source)));
        let leg: Value = serde_json::from_str(&leg).expect("JSON");
        let params = &leg[PARAMS];
        assert_eq!(params["remote_kv_source"]["remote_port"], 7777);
        assert_eq!(params["do_remote_decode"], true);
    }

    #[test]
    fn what_the_prefill_engine_says_goes_on_as_it_is() {
        let answer = br#"{"choices":[],"usage":{"prompt_tokens_details":{"cached_tokens":32}},"kv_transfer_params":{"remote_block_ids":[[1,2]], "tp_size":1}}"#;
        let prefilled = Prefilled::read(answer);
        assert_eq!(prefilled.cached_tokens(), 32);
        let body = [Bytes::from_static(br#"{"prompt":"x"}"#)];
        assert_eq!(
            text(prefilled.decode(&body)),
            r#"{"prompt":"x","kv_transfer_params":{"remote_block_ids":[[1,2]], "tp_size":1}}"#
        );
        assert!(Prefilled::read(b"no JSON").params().is_none());
    }
}
