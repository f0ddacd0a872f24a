//! The health service over gRPC, plain and with TLS.

use std::sync::Arc;

use http::uri::PathAndQuery;
use llmd_epp::extproc;
use llmd_epp::health::{
    CHECK, HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse, LIST,
    ServingStatus,
};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::picker::{Picker, Setup};

async fn channel(picker: &Picker) -> Channel {
    let channel = Channel::from_shared(format!("http://{}", picker.address)).expect("valid");
    channel.connect().await.expect("connects")
}

async fn ask<Q, A>(channel: Channel, path: &'static str, question: Q) -> Result<A, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("ready");
    let codec = ProstCodec::<Q, A>::new();
    let answer = grpc
        .unary(Request::new(question), PathAndQuery::from_static(path), codec)
        .await?;
    Ok(answer.into_inner())
}

pub(crate) async fn check(channel: &Channel, service: &str) -> ServingStatus {
    let question = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer: HealthCheckResponse = ask(channel.clone(), CHECK, question).await.expect("answers");
    answer.status()
}

const NAMES: [&str; 5] = ["", "liveness", "readiness", extproc::SERVICE, "anything-else"];

#[tokio::test]
async fn every_name_follows_sync_and_drain() {
    let picker = Picker::start(Setup::default()).await;
    let channel = channel(&picker).await;
    let expect = async |expected: ServingStatus| {
        for name in NAMES {
            assert_eq!(check(&channel, name).await, expected, "{name:?}");
        }
    };
    expect(ServingStatus::NotServing).await;
    picker.health.synced();
    expect(ServingStatus::Serving).await;
    let list: HealthListResponse = ask(channel.clone(), LIST, HealthListRequest {})
        .await
        .expect("answers");
    assert_eq!(list.statuses.len(), 4);
    assert!(
        list.statuses
            .values()
            .all(|answer| answer.status() == ServingStatus::Serving)
    );
    picker.health.draining();
    expect(ServingStatus::NotServing).await;
}

#[tokio::test]
async fn watch_is_unimplemented() {
    let picker = Picker::start(Setup::default()).await;
    let question = HealthCheckRequest::default();
    let answer: Result<HealthCheckResponse, _> =
        ask(channel(&picker).await, "/grpc.health.v1.Health/Watch", question).await;
    assert_eq!(answer.expect_err("refused").code(), Code::Unimplemented);
}

#[tokio::test]
async fn with_tls_only_tls_is_spoken() {
    let tls = llmd_process::tls::ServerTls {
        alpn: vec![b"h2".to_vec()],
        ..Default::default()
    };
    let tls = tls.build().expect("self-signed");
    let picker = Picker::start(Setup {
        tls: Some(tls.config),
        ..Setup::default()
    })
    .await;
    picker.health.synced();
    let plain = Channel::from_shared(format!("http://{}", picker.address)).expect("valid");
    let plain = plain.connect_lazy();
    let question = HealthCheckRequest::default();
    let refused: Result<HealthCheckResponse, _> = ask(plain, CHECK, question).await;
    refused.expect_err("plain text is refused");

    let channel = Channel::from_shared(format!("http://{}", picker.address)).expect("valid");
    let channel = channel
        .connect_with_connector(tower::service_fn(dial))
        .await
        .expect("connects");
    assert_eq!(check(&channel, "readiness").await, ServingStatus::Serving);
}

/// Connects with TLS and believes any certificate, as Envoy's empty validation context does.
async fn dial(
    uri: http::Uri,
) -> std::io::Result<hyper_util::rt::TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tokio::net::TcpStream::connect(uri.authority().expect("an authority").as_str()).await?;
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    Ok(hyper_util::rt::TokioIo::new(stream))
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
