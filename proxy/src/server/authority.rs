//! The private certificate authority of the TLS listener, and the TLS settings of both sides.
//!
//! The authority is made once per home. It can vouch for nothing but this machine's loopback names, and
//! its key is readable by its owner only. Each start gets a certificate of its own.

#![expect(clippy::disallowed_methods, reason = "runs once, before anything listens")]

use std::fs::{self, OpenOptions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::profile::store::{StoreError, make_directory, replace};
use crate::secret::Secret;

/// How long the authority is good for, in years.
const AUTHORITY_YEARS: i16 = 10;

/// What went wrong with TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of certificates or keys cannot be used.
    #[error("{path} cannot be used: {problem}; {advice}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// Something that does not depend on files.
    #[error("failed to set up TLS: {0}")]
    Setup(String),
}

/// The authority of a home.
#[derive(Debug)]
pub struct Authority {
    /// Its certificate, for clients to trust.
    pub certificate: PathBuf,
    pem: String,
    key: Secret,
}

impl Authority {
    /// Opens the authority in `home`, which is made if there is none.
    ///
    /// # Errors
    /// When its files cannot be read, written or used.
    pub fn open(home: &Path) -> Result<Self, TlsError> {
        let directory = home.join("tls");
        make_directory(&directory)?;
        let certificate = directory.join("authority.pem");
        let key_path = directory.join("authority.key");
        // Two processes that start together must not each make one.
        let lock_path = directory.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let io_error = |action, path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Store(StoreError::Io { action, path, source })
        };
        let lock = lock.map_err(io_error("open", &lock_path))?;
        lock.lock().map_err(io_error("lock", &lock_path))?;
        if !certificate.exists() {
            let (pem, key) = make_authority()?;
            // The certificate makes it complete, so its key comes first.
            replace(&key_path, key.as_bytes())?;
            replace(&certificate, pem.as_bytes())?;
        }
        let pem = fs::read_to_string(&certificate).map_err(io_error("read", &certificate))?;
        let key = fs::read_to_string(&key_path).map_err(io_error("read", &key_path))?;
        Ok(Self { certificate, pem, key: Secret::new(key) })
    }

    /// The settings of a listener, with a new certificate for this machine's loopback names.
    ///
    /// # Errors
    /// When the authority's files cannot be used.
    pub fn server_config(&self) -> Result<rustls::ServerConfig, TlsError> {
        let unusable = |problem: String| TlsError::File {
            path: self.certificate.clone(),
            problem,
            advice: "remove the directory it is in, and a new authority is made",
        };
        let key = KeyPair::from_pem(self.key.expose()).map_err(|error| unusable(error.to_string()))?;
        let issuer = Issuer::from_ca_cert_pem(&self.pem, key).map_err(|error| unusable(error.to_string()))?;
        let leaf_key = KeyPair::generate().map_err(setup)?;
        let leaf = leaf_params()?.signed_by(&leaf_key, &issuer).map_err(setup)?;
        let chain = vec![leaf.der().clone()];
        let private = PrivateKeyDer::try_from(leaf_key.serialize_der()).map_err(setup)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(setup)?;
        let mut config = config.with_no_client_auth().with_single_cert(chain, private).map_err(setup)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn setup(error: impl std::fmt::Display) -> TlsError {
    TlsError::Setup(error.to_string())
}

/// Makes an authority that can vouch for loopback names and addresses alone.
fn make_authority() -> Result<(String, String), TlsError> {
    let key = KeyPair::generate().map_err(setup)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "prodex local authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(v4, 32)),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(v6, 128)),
        ],
        excluded_subtrees: Vec::new(),
    });
    set_validity(&mut params, AUTHORITY_YEARS);
    let certificate = params.self_signed(&key).map_err(setup)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn leaf_params() -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "prodex");
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into().map_err(setup)?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, 1);
    Ok(params)
}

/// Good from yesterday on, so that a clock that is a little behind does no harm.
fn set_validity(params: &mut CertificateParams, years: i16) {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let from = today.yesterday().unwrap_or(today);
    // The 29th of February is not in every year; a day less does no harm.
    let day = |date: jiff::civil::Date| u8::try_from(date.day().min(28)).unwrap_or(1);
    let month = |date: jiff::civil::Date| u8::try_from(date.month()).unwrap_or(1);
    params.not_before = rcgen::date_time_ymd(i32::from(from.year()), month(from), day(from));
    params.not_after = rcgen::date_time_ymd(i32::from(today.year() + years), month(today), day(today));
}

/// The settings of connections to upstreams: the public authorities, and those of a file.
///
/// # Errors
/// When the file cannot be read or used.
pub fn client_config(further: Option<&Path>) -> Result<rustls::ClientConfig, TlsError> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = further {
        let unusable = |problem: String| TlsError::File {
            path: path.to_owned(),
            problem,
            advice: "set upstream_ca to a PEM file with certificates",
        };
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| unusable(error.to_string()))?;
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(unusable("it holds no certificate".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(setup)?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    // Upstream connections carry one exchange at a time, with its bytes as they are.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_authority_is_made_once_and_its_key_is_private() {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open(home.path()).unwrap();
        authority.server_config().unwrap();
        let again = Authority::open(home.path()).unwrap();
        assert_eq!((&authority.pem, &authority.key), (&again.pem, &again.key));
        assert!(!format!("{authority:?}").contains("PRIVATE KEY"), "its key is not printed");
        let mode = fs::metadata(home.path().join("tls/authority.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        client_config(Some(&authority.certificate)).unwrap();
    }

    #[test]
    fn a_broken_authority_is_named() {
        let home = tempfile::tempdir().unwrap();
        Authority::open(home.path()).unwrap();
        fs::write(home.path().join("tls/authority.pem"), "x").unwrap();
        let error = Authority::open(home.path()).unwrap().server_config().unwrap_err();
        assert!(error.to_string().contains("tls/authority.pem cannot be used"), "{error}");
        assert!(client_config(Some(&home.path().join("tls/authority.pem"))).is_err());
        assert!(client_config(Some(Path::new("/nowhere"))).is_err());
    }
}
