//! A tiny picker that does the portable cases right, with a switch for each way to do one of them wrong.

mod answer;
mod conversation;

use std::convert::Infallible;
use std::future::Ready;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use llmd_epp_conformance::wire::{ProcessingRequest, ProcessingResponse};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::StreamingService;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use conversation::Conversation;

/// A way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    DestinationUnderAnotherName,
    DestinationByName,
    DestinationOutsideThePool,
    DestinationAppended,
    DestinationOnlyIfAbsent,
    NoMetadata,
    MetadataDiffers,
    NoContentLength,
    WrongContentLength,
    ContentLengthWithoutBody,
    NoClearRouteCache,
    ClearRouteCacheInResponse,
    LongChunks,
    EndOnEveryChunk,
    NoEnd,
    BodyWrittenAnew,
    BodyReplaced,
    BodyLost,
    ContinueAndReplace,
    BodyBeforeHead,
    HeadTooEarly,
    SecondEndAnswered,
    RequestTrailersIgnored,
    UpgradeWaits,
    WrongStatus,
    WrongReason,
    NoReason,
    BareErrorText,
    WrongCode,
    AnswerAfterRefusal,
    InvalidJsonAccepted,
    MissingModelAccepted,
    InputsEchoed,
    HeaderInvented,
    TextValues,
    TextValuesUnread,
    NoRequestId,
    RoutingHeadersKept,
    SubsetIgnored,
    EmptySubsetIsAll,
    SubsetComparesPorts,
    SubsetOfBodilessIgnored,
    QueryIsPath,
    AliasWins,
    InnerModelRewritten,
    ModelNotRestored,
    ModelNotRestoredOverMessages,
    OtherModelsRestored,
    NoMarker,
    ResponseWithoutEnd,
    ResponseEndBeforeTrailers,
    ResponseTrailersUnanswered,
    ResponseHeld,
    ResponseLongChunks,
    FailsAtClose,
}

/// A running stub; ends with its guard.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Stub {
    pub(crate) async fn start(endpoints: Vec<SocketAddr>, fault: Option<Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("its address");
        let picker = Picker {
            endpoints: endpoints.into(),
            fault,
        };
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let picker = picker.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let picker = picker.clone();
                        async move {
                            let codec = ProstCodec::<ProcessingResponse, ProcessingRequest>::new();
                            Ok::<_, Infallible>(
                                tonic::server::Grpc::new(codec).streaming(picker, request).await,
                            )
                        }
                    });
                    // A client that leaves is part of the cases.
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, task }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Picker {
    endpoints: Arc<[SocketAddr]>,
    fault: Option<Fault>,
}

impl StreamingService<ProcessingRequest> for Picker {
    type Response = ProcessingResponse;
    type ResponseStream = ReceiverStream<Result<ProcessingResponse, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<ProcessingRequest>>) -> Self::Future {
        let (sender, receiver) = mpsc::channel(1024);
        let mut messages = request.into_inner();
        let mut conversation = Conversation::new(Arc::clone(&self.endpoints), self.fault);
        let fails_at_close = self.fault == Some(Fault::FailsAtClose);
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                for answer in conversation.on_message(message) {
                    if sender.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
                if conversation.is_over {
                    return;
                }
            }
            if fails_at_close {
                let _ = sender
                    .send(Err(Status::unknown("cannot receive stream request")))
                    .await;
            }
        });
        std::future::ready(Ok(Response::new(ReceiverStream::new(receiver))))
    }
}
