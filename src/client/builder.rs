//! A client for a program that is not an extension: a person, not Gofer's environment, sets the
//! address and the token.

use std::fmt;

use gofer_net::Clock;
use gofer_net::tls::{PemProblem, Trust, certificates};
use http::HeaderValue;

use super::address::GoferAddress;
use super::{ClientOptions, Gofer, new_client};
use crate::error::{Error, Result};

/// The name under which runs are started by default.
const NAME: &str = "gofer-sdk";

/// Sets up a [`Gofer`] for a program that is not an extension; made by [`Gofer::builder`].
///
/// ```
/// use gofer_sdk::Gofer;
///
/// // What is wrong is reported when the client is built, by name.
/// let error = Gofer::builder("https://gofer.example.com").build().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "parameter `address`: must be host or host:port, without a scheme or a path",
/// );
/// ```
#[derive(Clone)]
#[must_use]
pub struct GoferBuilder {
    address: String,
    token: Option<String>,
    certificates: Vec<String>,
    /// The only certificate to trust, whatever the others say.
    pinned: Option<String>,
    skip_tls_verify: bool,
    name: String,
}

/// Without the token.
impl fmt::Debug for GoferBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoferBuilder")
            .field("address", &self.address)
            .field("skip_tls_verify", &self.skip_tls_verify)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl GoferBuilder {
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            token: None,
            certificates: Vec::new(),
            pinned: None,
            skip_tls_verify: false,
            name: NAME.to_owned(),
        }
    }

    /// The token that calls carry. Without one, only calls that need none are answered, such as
    /// `GetSystemInfo`.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Also trusts these PEM certificates: a private CA's, or Gofer's own. May be called several
    /// times; the system's CAs stay trusted.
    pub fn ca_certificate(mut self, pem: impl Into<String>) -> Self {
        self.certificates.push(pem.into());
        self
    }

    /// Accepts any certificate, for development.
    pub fn skip_tls_verify(mut self) -> Self {
        self.skip_tls_verify = true;
        self
    }

    /// The name under which [`Gofer::start_run`] starts runs; default `gofer-sdk`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    fn trust(&self) -> std::result::Result<Trust, PemProblem> {
        if let Some(pem) = &self.pinned {
            let extra = certificates(pem)?.into_iter().take(1).collect();
            return Ok(Trust { extra, only_extra: true, skip_verification: false });
        }
        let mut trust = Trust { skip_verification: self.skip_tls_verify, ..Trust::default() };
        for pem in &self.certificates {
            trust.extra.extend(certificates(pem)?);
        }
        Ok(trust)
    }

    /// The client. It connects at its first call.
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`](crate::ErrorKind::InvalidParameter) if the address is not
    /// `host[:port]`, the token cannot be sent, or a certificate cannot be read.
    pub fn build(self) -> Result<Gofer> {
        let invalid = |key: &str, why: String| Err(Error::invalid_parameter(key, why));
        let address: GoferAddress = match self.address.parse() {
            Ok(address) => address,
            Err(error) => return invalid("address", format!("{error}")),
        };
        let authorization = self.token.as_deref().map(authorization);
        if let Some(None) = authorization {
            let why = "must be one line of visible ASCII characters, as Gofer issued it";
            return invalid("token", why.to_owned());
        }
        let trust = match self.trust() {
            Ok(trust) => trust,
            Err(problem) => return invalid("ca_certificate", problem.to_string()),
        };
        Ok(new_client(ClientOptions {
            dial: address.dial(),
            authority: address.authority(),
            server_name: address.server_name(),
            trust,
            authorization: authorization.flatten(),
            name: self.name,
            is_extension: false,
            clock: Clock::system(),
        }))
    }
}

/// Trusts only the server that has the key of the first certificate (PEM): not the system's CAs, and
/// not what else the builder says. The others may be CAs, which vouch for more than this server.
pub fn pin(mut builder: GoferBuilder, pem: impl Into<String>) -> GoferBuilder {
    builder.pinned = Some(pem.into());
    builder
}

/// `Bearer <token>`; `None` if the token is empty or not visible ASCII.
pub(crate) fn authorization(token: &str) -> Option<HeaderValue> {
    let visible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| visible)?;
    // Hidden when headers are printed.
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests;
