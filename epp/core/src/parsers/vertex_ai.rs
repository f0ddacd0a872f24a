//! `vertexai-parser`: Vertex AI's prediction service over gRPC, with OpenAI's JSON inside.

use llmd_openai::BodyKind;
use llmd_openai::grpc::{Prediction, Service};

use super::{Parser, Path};

const CHAT: BodyKind = BodyKind::Grpc(Service::Vertex(Prediction::Chat));
const RAW: BodyKind = BodyKind::Grpc(Service::Vertex(Prediction::Raw));

/// Claims `ChatCompletions`, `RawPredict` and `StreamRawPredict`.
pub static VERTEX_AI_PARSER: Parser = Parser {
    type_name: "vertexai-parser",
    paths: &[
        Path::read("PredictionService/ChatCompletions", CHAT),
        Path::read("PredictionService/RawPredict", RAW),
        Path::read("PredictionService/StreamRawPredict", RAW),
    ],
    protocols: &["kubernetes.io/h2c"],
};
