//! The least that an ext-proc server on this stack can do: endpoints in turn, bodies echoed. Its connections have
//! threads of their own, as ours.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use llmd_epp::extproc::proto::{
    Answer, AppendAction, BodyMutation, CommonAnswer, CommonResponse, Event, HeaderMutation, HeaderValue,
    HeaderValueOption, HttpBody, ProcessingRequest, ProcessingResponse, TrailersAnswer,
};
use llmd_epp::grpc::StreamThreads;
use tokio::net::{TcpListener, TcpStream};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// First argument of the process that runs it; the second is the endpoints, with commas.
pub(crate) const ROLE: &str = "floor";

/// Windows as our server has them: what is compared is the work above the transport.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
const MAX_STREAMS: u32 = 100_000;

/// Serves until it is killed; says where first.
pub(crate) fn run() {
    let endpoints = std::env::args().nth(2).expect("endpoints");
    let endpoints: Arc<[Bytes]> = endpoints.split(',').map(|one| one.to_owned().into()).collect();
    let turn = Arc::new(AtomicUsize::new(0));
    let threads = StreamThreads::start().expect("threads");
    llmd_e2e::bench::runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        println!("{}", listener.local_addr().expect("its address"));
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let (endpoints, turn) = (Arc::clone(&endpoints), Arc::clone(&turn));
            let service = service_fn(move |request| {
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                let process = Process(endpoints[turn % endpoints.len()].clone());
                async move {
                    let codec = ProstCodec::<ProcessingResponse, ProcessingRequest>::new();
                    Ok::<_, Infallible>(Grpc::new(codec).streaming(process, request).await)
                }
            });
            let stream = stream.into_std().expect("a socket");
            threads.next().expect("a thread").spawn(async move {
                http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .max_concurrent_streams(MAX_STREAMS)
                    .serve_connection(
                        TokioIo::new(TcpStream::from_std(stream).expect("a socket")),
                        service,
                    )
                    .await
            });
        }
    });
}

struct Process(Bytes);

impl StreamingService<ProcessingRequest> for Process {
    type Response = ProcessingResponse;
    type ResponseStream = Answers;
    type Future = Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<ProcessingRequest>>) -> Self::Future {
        ready(Ok(Response::new(Answers {
            incoming: request.into_inner(),
            endpoint: self.0.clone(),
            head: None,
            bodies: VecDeque::new(),
        })))
    }
}

/// Holds the head back until the body is complete, as every picker must that reads the body.
struct Answers {
    incoming: Streaming<ProcessingRequest>,
    endpoint: Bytes,
    head: Option<ProcessingResponse>,
    bodies: VecDeque<ProcessingResponse>,
}

impl Stream for Answers {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.head.is_none()
                && let Some(answer) = self.bodies.pop_front()
            {
                return Poll::Ready(Some(Ok(answer)));
            }
            let Some(message) = ready!(Pin::new(&mut self.incoming).poll_next(cx)) else {
                return Poll::Ready(None);
            };
            let Ok(ProcessingRequest {
                event: Some(event), ..
            }) = message
            else {
                return Poll::Ready(None);
            };
            match event {
                Event::RequestHeaders(head) => {
                    let answer = plain(Answer::RequestHeaders(route(&self.endpoint)));
                    if head.end_of_stream {
                        return Poll::Ready(Some(Ok(answer)));
                    }
                    self.head = Some(answer);
                }
                Event::RequestBody(body) => {
                    let is_last = body.end_of_stream;
                    self.bodies.push_back(plain(Answer::RequestBody(echo(body))));
                    if is_last && let Some(head) = self.head.take() {
                        return Poll::Ready(Some(Ok(head)));
                    }
                }
                Event::ResponseHeaders(_) => {
                    let answer = CommonAnswer {
                        response: Some(CommonResponse::default()),
                    };
                    return Poll::Ready(Some(Ok(plain(Answer::ResponseHeaders(answer)))));
                }
                Event::ResponseBody(body) => {
                    return Poll::Ready(Some(Ok(plain(Answer::ResponseBody(echo(body))))));
                }
                Event::RequestTrailers(_) => {
                    return Poll::Ready(Some(Ok(plain(
                        Answer::RequestTrailers(TrailersAnswer::default()),
                    ))));
                }
                Event::ResponseTrailers(_) => {
                    return Poll::Ready(Some(Ok(plain(Answer::ResponseTrailers(
                        TrailersAnswer::default(),
                    )))));
                }
            }
        }
    }
}

fn plain(answer: Answer) -> ProcessingResponse {
    ProcessingResponse {
        answer: Some(answer),
        dynamic_metadata: None,
    }
}

fn route(endpoint: &Bytes) -> CommonAnswer {
    let header = HeaderValue {
        key: Bytes::from_static(b"x-gateway-destination-endpoint"),
        value: Bytes::new(),
        raw_value: endpoint.clone(),
    };
    let option = HeaderValueOption {
        header: Some(header),
        append_action: AppendAction::OverwriteIfExistsOrAdd.into(),
    };
    let mutation = HeaderMutation {
        set_headers: vec![option],
        remove_headers: Vec::new(),
    };
    let response = CommonResponse {
        header_mutation: Some(mutation),
        clear_route_cache: true,
        ..CommonResponse::default()
    };
    CommonAnswer {
        response: Some(response),
    }
}

fn echo(body: HttpBody) -> CommonAnswer {
    let mutation = BodyMutation {
        streamed_response: Some(body),
    };
    let response = CommonResponse {
        body_mutation: Some(mutation),
        ..CommonResponse::default()
    };
    CommonAnswer {
        response: Some(response),
    }
}
