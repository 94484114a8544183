//! TLS with an authority of the mock's own.

use std::sync::Arc;

use mock_upstream::tls::Authority;
use mock_upstream::{Config, Mock};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

async fn status_line(mock: &Mock, authority: &Authority, name: &'static str) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tcp = TcpStream::connect(mock.address()).await?;
    let name = ServerName::try_from(name).unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    tls.write_all(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut reply = String::new();
    tls.read_to_string(&mut reply).await?;
    Ok(reply.lines().next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn two_mocks_are_trusted_by_one_authority() {
    let authority = Arc::new(Authority::generate().unwrap());
    for name in ["localhost", "127.0.0.1"] {
        let config = Config { tls: Some(Arc::clone(&authority)), ..Config::default() };
        let mock = Mock::start(config).await.unwrap();
        assert!(mock.base_url().starts_with("https://localhost:"));
        assert_eq!(status_line(&mock, &authority, name).await.unwrap(), "HTTP/1.1 200 OK");
        let stranger = Authority::generate().unwrap();
        assert!(status_line(&mock, &stranger, name).await.is_err());
        assert_eq!(mock.ca_pem(), Some(authority.pem()));
    }
}
