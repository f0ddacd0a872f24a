//! vLLM's engine service. Field numbers: `vllm.grpc.engine` (llm-d-router, `vllmgrpc-parser`).

use prost::Message;

use super::unreadable;
use crate::{Prompt, PromptInput, RequestFacts, ScanError, Usage};

#[derive(Clone, PartialEq, Message)]
pub(super) struct GenerateRequest {
    #[prost(message, optional, tag = "2")]
    pub(super) tokenized: Option<TokenizedInput>,
    #[prost(string, optional, tag = "3")]
    pub(super) text: Option<String>,
    #[prost(message, optional, tag = "4")]
    pub(super) sampling_params: Option<SamplingParams>,
    #[prost(bool, tag = "5")]
    pub(super) stream: bool,
    #[prost(message, optional, tag = "7")]
    pub(super) mm_inputs: Option<MmInputs>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EmbedRequest {
    #[prost(message, optional, tag = "2")]
    pub(super) tokenized: Option<TokenizedInput>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TokenizedInput {
    #[prost(uint32, repeated, tag = "2")]
    pub(super) input_ids: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SamplingParams {
    #[prost(uint32, optional, tag = "8")]
    pub(super) max_tokens: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MmInputs {
    #[prost(string, repeated, tag = "6")]
    pub(super) mm_hashes: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GenerateResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) chunk: Option<Chunk>,
    #[prost(message, optional, tag = "2")]
    pub(super) complete: Option<Complete>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Chunk {
    #[prost(uint32, tag = "2")]
    pub(super) prompt: u32,
    #[prost(uint32, tag = "3")]
    pub(super) completion: u32,
    #[prost(uint32, tag = "4")]
    pub(super) cached: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Complete {
    #[prost(uint32, tag = "3")]
    pub(super) prompt: u32,
    #[prost(uint32, tag = "4")]
    pub(super) completion: u32,
    #[prost(uint32, tag = "5")]
    pub(super) cached: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EmbedResponse {
    #[prost(uint32, tag = "2")]
    pub(super) prompt: u32,
}

/// Which method of the engine service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `Generate`.
    Generate,
    /// `Embed`.
    Embed,
}

/// The facts of a request.
pub(super) fn request(method: Method, message: &[u8]) -> Result<RequestFacts, ScanError> {
    let mut facts = RequestFacts::default();
    let input = match method {
        Method::Generate => {
            let request = GenerateRequest::decode(message).map_err(unreadable)?;
            facts.stream = request.stream;
            let cap = request.sampling_params.and_then(|params| params.max_tokens);
            facts.max_output_tokens = cap.map(u64::from);
            facts.media_parts = request.mm_inputs.map_or(0, |inputs| inputs.mm_hashes.len());
            let text = request.text.map(|text| PromptInput::Text(text.into_bytes()));
            request
                .tokenized
                .map(|tokenized| PromptInput::Tokens(tokenized.input_ids))
                .or(text)
        }
        Method::Embed => {
            let request = EmbedRequest::decode(message).map_err(unreadable)?;
            request
                .tokenized
                .map(|tokenized| PromptInput::Tokens(tokenized.input_ids))
        }
    };
    let input = input.ok_or(ScanError::Invalid(
        "invalid gRPC request: must have tokenized or text input",
    ))?;
    facts.prompts.push(Prompt { input });
    Ok(facts)
}

/// Counts of a response message; zeros for what is no message of the service.
pub(super) fn usage(method: Method, message: &[u8]) -> Usage {
    let of = |prompt: u32, completion: u32, cached: u32| Usage {
        prompt: prompt.into(),
        completion: completion.into(),
        cached: cached.into(),
        total: 0,
    };
    match method {
        Method::Generate => match GenerateResponse::decode(message).unwrap_or_default() {
            GenerateResponse {
                complete: Some(last), ..
            } => of(last.prompt, last.completion, last.cached),
            GenerateResponse {
                chunk: Some(chunk), ..
            } => of(chunk.prompt, chunk.completion, chunk.cached),
            GenerateResponse { .. } => Usage::default(),
        },
        Method::Embed => of(EmbedResponse::decode(message).unwrap_or_default().prompt, 0, 0),
    }
}
