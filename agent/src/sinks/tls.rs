//! TLS: the other end must prove who it is, always. There is no switch to believe it without a proof.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use super::spec::Tls;

/// What a connection needs, or what is wrong with what was written. `trusted` gives those whom the host trusts.
pub(crate) fn config(
    tls: &Tls,
    trusted: impl FnOnce() -> Result<RootCertStore, String>,
) -> Result<ClientConfig, String> {
    let roots = match &tls.ca {
        None => trusted()?,
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("ca", pem)? {
                roots.add(certificate).map_err(|e| format!("`ca`: {e}"))?;
            }
            roots
        }
    };
    // Without naming a provider, which one it is would depend on what else is built in.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots);
    match &tls.own {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes())
                // The cause would be about the key itself.
                .map_err(|_unprintable| "`key` is no private key in PEM".to_owned())?;
            builder
                .with_client_auth_cert(certificates("cert", chain)?, key)
                .map_err(|e| format!("`cert` and `key`: {e}"))
        }
    }
}

fn certificates(key: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|e| format!("`{key}`: {e}"))?;
    if all.is_empty() { Err(format!("`{key}` has no certificate in PEM")) } else { Ok(all) }
}

/// Those whom the host trusts.
pub(super) fn of_host() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _odd) = roots.add_parsable_certificates(found.certs);
    match (taken, found.errors.first()) {
        (0, Some(e)) => {
            Err(format!("the certificates that this host trusts cannot be read: {e}; name one with `ca`"))
        }
        (0, None) => {
            Err("this host trusts no certificates (package ca-certificates); name one with `ca`".into())
        }
        _ => Ok(roots),
    }
}

/// The name that the certificate must have.
pub(crate) fn name(host: &str, tls: &Tls) -> Result<ServerName<'static>, String> {
    let name = tls.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|e| format!("`{name}` is no name of a server: {e}"))
}
