//! A certificate authority of the mock's own, and the certificate for the loopback names.
//!
//! Only HTTP/1.1 is offered by ALPN: the mock writes its bytes itself, and that is the protocol it writes.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Longest time that a handshake may take.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate could not be made.
    #[error("make a certificate")]
    Certificate(#[source] rcgen::Error),
    /// The certificate could not be used.
    #[error("set TLS up")]
    Setup(#[source] rustls::Error),
}

/// An authority that several mocks may share, so that a client trusts all of them with one file.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// When the key or the certificate cannot be made.
    pub fn generate() -> Result<Self, TlsError> {
        let key = KeyPair::generate().map_err(TlsError::Certificate)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "mock-upstream CA");
        let certificate = params.self_signed(&key).map_err(TlsError::Certificate)?;
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Ok(Self { pem, certificate: der, issuer: Issuer::new(params, key) })
    }

    /// The authority's certificate, to be trusted by clients.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The authority's certificate as DER, for a client in the same process.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A server's side for the loopback names.
    ///
    /// # Errors
    /// When the key or the certificate cannot be made.
    pub fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let key = KeyPair::generate().map_err(TlsError::Certificate)?;
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).map_err(TlsError::Certificate)?;
        params.distinguished_name.push(DnType::CommonName, "mock-upstream");
        params.use_authority_key_identifier_extension = true;
        params.key_usages.push(KeyUsagePurpose::DigitalSignature);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        let leaf = params.signed_by(&key, &self.issuer).map_err(TlsError::Certificate)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(TlsError::Setup)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
