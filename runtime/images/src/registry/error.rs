//! What goes wrong between here and a registry. The messages end up in a pod's events, so each says what, where, and why.

use std::error::Error;

use thiserror::Error;

/// Why a registry did not give what was asked for.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The place's own settings cannot work.
    #[error("{place}: {reason}")]
    Configuration {
        /// Which.
        place: String,
        /// Why.
        reason: String,
    },
    /// It does not have it.
    #[error("{place}: {what} not found: {code}")]
    NotFound {
        /// Which registry.
        place: String,
        /// What was asked for.
        what: String,
        /// The registry's own word, like `manifest unknown`.
        code: String,
    },
    /// It wants to know who asks, or does not like who does.
    #[error("{place}: {what}: {reason}")]
    Unauthorized {
        /// Which registry.
        place: String,
        /// What was asked for.
        what: String,
        /// `unauthorized: authentication required`, `denied: …`
        reason: String,
    },
    /// Its certificate is not trusted.
    #[error("{place}: tls: failed to verify certificate: {reason}")]
    Certificate {
        /// Which registry.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It could not be reached, or broke off.
    #[error("{place}: {what}: {reason}")]
    Connection {
        /// Which registry.
        place: String,
        /// What was asked for.
        what: String,
        /// Why.
        reason: String,
    },
    /// It answered with something else.
    #[error("{place}: {what}: unexpected answer: {reason}")]
    Answer {
        /// Which registry.
        place: String,
        /// What was asked for.
        what: String,
        /// Status and the registry's message.
        reason: String,
    },
}

impl RegistryError {
    /// Whether asking the same place again may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Connection { .. } => true,
            Self::Answer { reason, .. } => {
                ["429", "500", "502", "503", "504"].iter().any(|code| reason.starts_with(code))
            }
            Self::Configuration { .. }
            | Self::NotFound { .. }
            | Self::Unauthorized { .. }
            | Self::Certificate { .. } => false,
        }
    }

    /// What a failed request means.
    pub(super) fn of(place: &str, what: &str, error: &reqwest::Error) -> Self {
        let place = place.to_owned();
        let mut cause: Option<&(dyn Error + 'static)> = error.source();
        let mut innermost = None;
        while let Some(current) = cause {
            if let Some(reason) = tls_reason(current) {
                return match reason {
                    rustls::Error::InvalidCertificate(reason) => {
                        Self::Certificate { place, reason: certificate_reason(reason) }
                    }
                    other => Self::Connection {
                        place,
                        what: what.to_owned(),
                        reason: format!("tls: {other}"),
                    },
                };
            }
            innermost = Some(current.to_string());
            cause = current.source();
        }
        let reason = if error.is_timeout() {
            "timed out".to_owned()
        } else {
            innermost.unwrap_or_else(|| error.to_string())
        };
        Self::Connection { place, what: what.to_owned(), reason }
    }
}

/// TLS errors travel inside I/O errors, which do not name them as their source.
fn tls_reason<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    tls_reason(error.downcast_ref::<std::io::Error>()?.get_ref()?)
}

fn certificate_reason(reason: &rustls::CertificateError) -> String {
    match reason {
        rustls::CertificateError::UnknownIssuer => {
            "certificate signed by unknown authority".to_owned()
        }
        other => other.to_string(),
    }
}
