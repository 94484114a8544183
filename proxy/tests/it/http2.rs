//! A client over TLS that trusts the proxy's own authority, and speaks HTTP/2 or HTTP/1.1.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::rig::{LIMIT, Proxy};

/// The certificate of the proxy's authority.
pub(crate) fn authority(proxy: &Proxy) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(Path::new(proxy.ready["ca_cert"].as_str().unwrap())).unwrap()
}

/// TLS settings of a client that trusts this authority alone.
pub(crate) fn trusting(authority: CertificateDer<'static>, protocol: &str) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config
}

/// A TLS connection to the proxy, by the name `localhost`, for this protocol.
pub(crate) async fn connect(proxy: &Proxy, protocol: &str) -> TlsStream<TcpStream> {
    let connector = TlsConnector::from(Arc::new(trusting(authority(proxy), protocol)));
    let tcp = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    let stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
    stream
}

/// A body that is known in one piece, or comes to no end behind it.
pub(crate) struct Upload {
    bytes: Option<Bytes>,
    ends: bool,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.bytes.take() {
            None if !self.ends => Poll::Pending,
            bytes => Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ends && self.bytes.is_none()
    }
}

/// An HTTP/2 connection to the proxy.
pub(crate) struct Http2 {
    sender: SendRequest<Upload>,
    origin: String,
    /// The socket once more: its owner keeps it open for as long as there are streams.
    socket: socket2::Socket,
}

impl Http2 {
    pub(crate) async fn open(proxy: &Proxy) -> Self {
        let stream = connect(proxy, "h2").await;
        let socket = socket2::SockRef::from(stream.get_ref().0).try_clone().unwrap();
        let stream = TokioIo::new(stream);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        Self { sender, origin: format!("https://localhost:{}", proxy.port()), socket }
    }

    /// What ends the connection, whatever goes on.
    pub(crate) fn end(&self) -> impl FnOnce() + use<> {
        let socket = self.socket.try_clone().unwrap();
        move || socket.shutdown(std::net::Shutdown::Both).unwrap()
    }

    /// Sends a request, by path or by whole URL, and waits for the head of its response.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> hyper::Result<http::Response<Incoming>> {
        let bytes = Some(body.into()).filter(|bytes| !bytes.is_empty());
        self.upload(method, target, fields, Upload { bytes, ends: true }).await
    }

    /// Begins a request that does not come to its end.
    pub(crate) async fn begin(&mut self, target: &str) -> hyper::Result<http::Response<Incoming>> {
        let upload = Upload { bytes: Some(Bytes::from_static(b"{")), ends: false };
        self.upload("POST", target, &[], upload).await
    }

    async fn upload(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        upload: Upload,
    ) -> hyper::Result<http::Response<Incoming>> {
        let url =
            if target.starts_with('/') { format!("{}{target}", self.origin) } else { target.to_owned() };
        let mut request = http::Request::builder().method(method).uri(url);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = self.sender.send_request(request.body(upload).unwrap());
        tokio::time::timeout(LIMIT, response).await.expect("a response in time")
    }
}

/// The next data of a body; none at its end.
pub(crate) async fn data(body: &mut Incoming) -> Option<hyper::Result<Bytes>> {
    let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
    let frame = tokio::time::timeout(LIMIT, frame).await.expect("data in time")?;
    Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
}

/// All of a body, and whether it ended well.
pub(crate) async fn collect(body: &mut Incoming) -> (Vec<u8>, hyper::Result<()>) {
    let mut all = Vec::new();
    while let Some(next) = data(body).await {
        match next {
            Ok(bytes) => all.extend_from_slice(&bytes),
            Err(error) => return (all, Err(error)),
        }
    }
    (all, Ok(()))
}
