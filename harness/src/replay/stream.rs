//! Connections to the proxy under test, plain or TLS, as one type that can also be reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The proxy under test, as a client is told of it.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// `http://host:port` or `https://host:port`, and a path that comes before every recorded one.
    pub base_url: String,
    /// The certificate of the authority to trust, as PEM; needed for `https`.
    pub ca_pem: Option<String>,
}

/// Why a target cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not a URL of the kind that a proxy has.
    #[error("use {0:?} as a target: it is not http://host:port or https://host:port with or without a path")]
    Url(String),
    /// An `https` URL without an authority to trust.
    #[error("use {0:?} as a target: no certificate of an authority is given")]
    NoAuthority(String),
    /// The authority is not one.
    #[error("read the authority's certificate")]
    Authority(#[source] rustls::pki_types::pem::Error),
    /// TLS cannot be set up.
    #[error("set TLS up")]
    Tls(#[source] rustls::Error),
}

impl Target {
    /// A plain target.
    #[must_use]
    pub fn plain(base_url: impl Into<String>) -> Self {
        Self { base_url: base_url.into(), ca_pem: None }
    }

    pub(super) fn endpoint(&self) -> Result<Endpoint, TargetError> {
        let bad = || TargetError::Url(self.base_url.clone());
        let (scheme, rest) = self.base_url.split_once("://").ok_or_else(bad)?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = authority.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match scheme {
            "http" => None,
            "https" => {
                let pem = self.ca_pem.as_ref();
                let pem = pem.ok_or_else(|| TargetError::NoAuthority(self.base_url.clone()))?;
                Some(trusting(pem)?)
            }
            _ => return Err(bad()),
        };
        let (authority, path) = (authority.to_owned(), path.trim_end_matches('/').to_owned());
        Ok(Endpoint { host, port, authority, path, tls })
    }
}

fn trusting(pem: &str) -> Result<rustls::ClientConfig, TargetError> {
    let authority = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(TargetError::Authority)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority).map_err(TargetError::Tls)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TargetError::Tls)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// A target taken apart.
#[derive(Debug)]
pub(super) struct Endpoint {
    host: String,
    port: u16,
    /// What goes into `Host`.
    pub(super) authority: String,
    /// What comes before every recorded path.
    pub(super) path: String,
    tls: Option<rustls::ClientConfig>,
}

impl Endpoint {
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// A new connection; with TLS, for this protocol.
    pub(super) async fn connect(&self, protocol: &[u8]) -> io::Result<Stream> {
        let tcp = TcpStream::connect((&*self.host, self.port)).await?;
        tcp.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok(Stream::Plain(tcp)) };
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        Ok(Stream::Tls(Box::new(tls)))
    }
}

/// A connection, with or without TLS.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Ends the connection with RST.
    pub(super) fn reset(self) {
        // If it cannot be set, a FIN is seen instead.
        let _ = self.tcp().set_zero_linger();
    }

    /// Whether the other side has closed a connection on which nothing is expected.
    pub(super) fn is_stale(&self) -> bool {
        let mut byte = [0];
        !matches!(self.tcp().try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the other side agreed to this protocol.
    pub(super) fn speaks(&self, protocol: &[u8]) -> bool {
        matches!(self, Self::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(protocol))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }
}
