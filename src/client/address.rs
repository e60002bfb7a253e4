//! The address of Gofer's API: `host[:port]`.

use std::fmt;
use std::str::FromStr;

use gofer_net::Dial;
use http::uri::Authority;
use tokio_rustls::rustls::pki_types::ServerName;

/// The port of an address without one.
const DEFAULT_PORT: u16 = 443;

/// The host and port of Gofer's API.
///
/// ```
/// use gofer_sdk::GoferAddress;
///
/// let address: GoferAddress = "gofer.example.com".parse()?;
/// assert_eq!(address.to_string(), "gofer.example.com:443");
/// let address: GoferAddress = "[::1]:8080".parse()?;
/// assert_eq!((address.host(), address.port()), ("::1", 8080));
/// # Ok::<(), gofer_sdk::InvalidAddress>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoferAddress {
    host: String,
    port: u16,
    /// Both are made when the address is parsed, so that a bad one is refused early.
    server_name: ServerName<'static>,
    authority: Authority,
}

/// A text that is not `host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidAddress(&'static str);

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidAddress {}

impl GoferAddress {
    /// The name or IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 443 if the address has none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is this machine, so that nothing is in between.
    pub(crate) fn is_loopback(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        address.map_or(self.host == "localhost", |address| address.is_loopback())
    }

    /// The name that the server's certificate must be valid for.
    pub(crate) fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }

    /// `host:port`, for HTTP.
    pub(crate) fn authority(&self) -> Authority {
        self.authority.clone()
    }

    pub(crate) fn dial(&self) -> Dial {
        Dial::Tcp { host: self.host.clone(), port: self.port }
    }

    fn new(host: String, port: u16) -> Result<Self, InvalidAddress> {
        let bad = InvalidAddress("the host must be a DNS name or an IP address");
        let server_name = ServerName::try_from(host.clone()).map_err(|_| bad.clone())?;
        let text =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let authority = Authority::try_from(text).map_err(|_| bad)?;
        Ok(Self { host, port, server_name, authority })
    }
}

impl FromStr for GoferAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if text.contains("://") || text.contains('/') {
            return Err(InvalidAddress("must be host or host:port, without a scheme or a path"));
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest
                .split_once(']')
                .ok_or(InvalidAddress("the closing bracket of `[…]` is missing"))?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(InvalidAddress("the host in brackets must be an IPv6 address"));
            }
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(InvalidAddress("only `:port` may follow `[…]`")),
            }
        } else {
            match text.split_once(':') {
                // More than one colon without brackets: a bare IPv6 address.
                Some((_, rest)) if rest.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let port = match port.map(str::parse) {
            None => DEFAULT_PORT,
            Some(Ok(port)) if port != 0 => port,
            Some(_) => return Err(InvalidAddress("the port must be a number from 1 to 65535")),
        };
        Self::new(host.to_owned(), port)
    }
}

/// `host:port`, IPv6 addresses in brackets.
impl fmt::Display for GoferAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.authority.fmt(f)
    }
}

#[cfg(test)]
mod tests;
