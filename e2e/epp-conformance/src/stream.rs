//! One ext-proc stream as a proxy sees it.
//!
//! The call is made in a task of its own: a server may hold its gRPC headers back until it has something to say.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::tls;
use crate::wire::{Event, Metadata, PROCESS, ProcessingRequest, ProcessingResponse, ProtocolConfiguration};

/// Longest wait for an answer that must come.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Messages in flight each way.
const DEPTH: usize = 1024;
/// `FULL_DUPLEX_STREAMED`
const FULL_DUPLEX: i32 = 4;

/// What comes next.
#[derive(Clone, Debug)]
pub enum Next {
    /// An answer.
    Answer(Box<ProcessingResponse>),
    /// The end of the stream.
    End(Code, String),
    /// Nothing in time.
    Silence,
}

/// Connects to a picker's ext-proc port.
pub async fn connect(address: SocketAddr, with_tls: bool) -> anyhow::Result<Channel> {
    let endpoint = Channel::from_shared(format!("http://{address}"))?.connect_timeout(PATIENCE);
    if with_tls {
        return tls::connect(endpoint, address)
            .await
            .with_context(|| format!("nobody answers gRPC with TLS on {address}"));
    }
    endpoint
        .connect()
        .await
        .with_context(|| format!("nobody answers gRPC without TLS on {address}"))
}

/// A stream; dropping it resets the call, as a proxy does whose client is gone.
#[derive(Debug)]
pub struct Stream {
    sender: Option<mpsc::Sender<ProcessingRequest>>,
    received: mpsc::Receiver<Result<ProcessingResponse, Status>>,
    task: JoinHandle<()>,
    end: Option<(Code, String)>,
    is_first: bool,
}

impl Stream {
    /// Opens a stream.
    pub fn open(channel: Channel) -> Self {
        let (sender, outgoing) = mpsc::channel(DEPTH);
        let (incoming, received) = mpsc::channel(DEPTH);
        let task = tokio::spawn(async move {
            if let Err(status) = pump(channel, outgoing, &incoming).await {
                // Nobody listens any more when the stream was dropped.
                let _ = incoming.send(Err(status)).await;
            }
        });
        Self {
            sender: Some(sender),
            received,
            task,
            end: None,
            is_first: true,
        }
    }

    /// Sends one message. A server that has ended the stream is no error here: the answers tell.
    pub async fn send(&mut self, event: Event, metadata_context: Option<Metadata>) {
        let protocol_config = std::mem::take(&mut self.is_first).then_some(ProtocolConfiguration {
            request_body_mode: FULL_DUPLEX,
            response_body_mode: FULL_DUPLEX,
        });
        let message = ProcessingRequest {
            event: Some(event),
            metadata_context,
            protocol_config,
        };
        if let Some(sender) = &self.sender {
            let _ = sender.send(message).await;
        }
    }

    /// Ends our direction.
    pub fn half_close(&mut self) {
        self.sender = None;
    }

    /// The next answer or the end, within `patience`.
    pub async fn next(&mut self, patience: Duration) -> Next {
        if let Some((code, message)) = &self.end {
            return Next::End(*code, message.clone());
        }
        let (code, message) = match tokio::time::timeout(patience, self.received.recv()).await {
            Err(_) => return Next::Silence,
            Ok(Some(Ok(answer))) => return Next::Answer(Box::new(answer)),
            Ok(Some(Err(status))) => (status.code(), status.message().to_owned()),
            Ok(None) => (Code::Ok, String::new()),
        };
        self.end = Some((code, message.clone()));
        Next::End(code, message)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pump(
    channel: Channel,
    outgoing: mpsc::Receiver<ProcessingRequest>,
    incoming: &mpsc::Sender<Result<ProcessingResponse, Status>>,
) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(64 << 20);
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<ProcessingRequest, ProcessingResponse>::new();
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let path = PathAndQuery::from_static(PROCESS);
    let mut answers = grpc
        .streaming(Request::new(outgoing), path, codec)
        .await?
        .into_inner();
    while let Some(answer) = answers.message().await? {
        if incoming.send(Ok(answer)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
