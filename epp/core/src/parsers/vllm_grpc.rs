//! `vllmgrpc-parser`: vLLM's engine service over gRPC.

use llmd_openai::BodyKind;
use llmd_openai::grpc::{Method, Service};

use super::{Parser, Path};

/// Claims `Generate` and `Embed`, whose messages name no model. For the other methods of the service add
/// `passthrough-parser`.
pub static VLLM_GRPC_PARSER: Parser = Parser {
    type_name: "vllmgrpc-parser",
    paths: &[
        Path::read(
            "vllm.grpc.engine.VllmEngine/Generate",
            BodyKind::Grpc(Service::Vllm(Method::Generate)),
        ),
        Path::read(
            "vllm.grpc.engine.VllmEngine/Embed",
            BodyKind::Grpc(Service::Vllm(Method::Embed)),
        ),
    ],
    protocols: &["kubernetes.io/h2c"],
};
