//! A client of one's own: for a program that is no extension and is told by a
//! person, not by Gofer's environment, where Gofer is and who calls.

use std::fmt;

use gofer_net::Clock;
use gofer_net::tls::{Trust, certificates};
use http::HeaderValue;

use super::address::GoferAddress;
use super::{Access, Gofer, new_client};
use crate::error::{Error, Result};

/// The name under which runs are started where nobody says otherwise.
const NAME: &str = "gofer-sdk";

/// How a [`Gofer`] is set up that is not an extension's; made by
/// [`Gofer::builder`].
///
/// ```
/// use gofer_sdk::Gofer;
///
/// # fn example() -> gofer_sdk::Result<()> {
/// let gofer = Gofer::builder("gofer.example.com:8080").token("6b8f…").build()?;
/// # Ok(()) }
/// // What is wrong is told when the client is built, by name.
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
            skip_tls_verify: false,
            name: NAME.to_owned(),
        }
    }

    /// The token that calls carry. Without one only those calls are answered
    /// that need none, such as `GetSystemInfo`.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Trusts these certificates too, PEM text of one or more: of a private
    /// authority, or Gofer's own. May be called again for more; the system's
    /// authorities stay trusted.
    pub fn ca_certificate(mut self, pem: impl Into<String>) -> Self {
        self.certificates.push(pem.into());
        self
    }

    /// Talks to whoever answers at the address, whatever its certificate: for
    /// development. Default false.
    pub fn skip_tls_verify(mut self, skip: bool) -> Self {
        self.skip_tls_verify = skip;
        self
    }

    /// The name under which [`Gofer::start_run`] starts runs; default
    /// `gofer-sdk`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The client. It connects at its first call.
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`](crate::ErrorKind::InvalidParameter) where the address is
    /// not `host[:port]`, the token cannot be sent, or a certificate is none.
    pub fn build(self) -> Result<Gofer> {
        let invalid = |key: &str, why: String| Err(Error::invalid_parameter(key, why));
        let address: GoferAddress = match self.address.parse() {
            Ok(address) => address,
            Err(error) => return invalid("address", format!("{error}")),
        };
        let authorization = match &self.token {
            None => None,
            Some(token) => match HeaderValue::try_from(format!("Bearer {token}")) {
                Ok(mut value) if !token.is_empty() => {
                    // Not shown by whoever prints the headers.
                    value.set_sensitive(true);
                    Some(value)
                }
                _ => {
                    let why = "must be one line of visible characters, as Gofer gave it";
                    return invalid("token", why.to_owned());
                }
            },
        };
        let mut trust = Trust { anyone: self.skip_tls_verify, ..Trust::default() };
        for pem in &self.certificates {
            match certificates(pem) {
                Ok(found) => trust.extra.extend(found),
                Err(problem) => return invalid("ca_certificate", problem.to_string()),
            }
        }
        Ok(new_client(Access {
            dial: address.dial(),
            authority: address.authority(),
            server_name: address.server_name(),
            trust,
            authorization,
            extension: self.name,
            clock: Clock::system(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn what_is_wrong_is_named_and_not_repeated() {
        let gofer = || GoferBuilder::new("localhost:8080".to_owned());
        for (builder, key) in [
            (GoferBuilder::new("localhost:http".to_owned()), "`address`"),
            (gofer().token("se\ncret"), "`token`"),
            (gofer().token(""), "`token`"),
            (gofer().ca_certificate("secret"), "`ca_certificate`"),
        ] {
            let error = builder.build().map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter);
            assert!(error.to_string().contains(key), "{error}");
            assert!(!error.to_string().contains("cret"), "{error}");
        }
        assert!(!format!("{:?}", gofer().token("secret")).contains("secret"));
    }
}
