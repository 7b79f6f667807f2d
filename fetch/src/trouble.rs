//! Translates the errors of hf-hub.
//!
//! The texts are written here and not taken from the errors, because an error can contain an
//! address with user name, password or signature.

use std::io;

use hf_hub::api::sync::ApiError;

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// An HTTP status.
    Status(u16),
    /// The partial file of an earlier run is as long as the file or longer.
    StalePart,
    /// No connection, or no HTTP over it to the hub. An immediate retry does not help.
    NoHub(String),
    /// The connection broke. A retry may help.
    Broken(String),
    /// The answer is not that of a hub.
    NotAHub(String),
    /// Another process holds the lock on the file.
    Locked,
    /// The cache directory cannot be used.
    Disk(String),
}

impl Trouble {
    /// An answer on which hf-hub panics.
    pub fn unexpected_answer() -> Trouble {
        Trouble::NotAHub("an unexpected answer".to_owned())
    }
}

/// Translates an error of hf-hub.
pub fn read(error: &ApiError) -> Trouble {
    match error {
        ApiError::RequestError(error) => read_request(error),
        // The error comes from copying the body to the partial file: from the network or the disk.
        ApiError::IoError(error) => match error.get_ref().and_then(|e| e.downcast_ref()) {
            Some(error) => read_request(error),
            None if is_network(error) => Trouble::Broken(broken_by(error)),
            None => Trouble::Disk(error.to_string()),
        },
        ApiError::MissingHeader(header) => Trouble::NotAHub(format!("no {header} header")),
        ApiError::InvalidHeader(header) => Trouble::NotAHub(format!("a bad {header} header")),
        ApiError::ParseIntError(_) => Trouble::NotAHub("a bad Content-Range header".to_owned()),
        ApiError::InvalidResume => Trouble::StalePart,
        ApiError::LockAcquisition(_) => Trouble::Locked,
        ApiError::TooManyRetries(inner) => read(inner),
    }
}

fn read_request(error: &ureq::Error) -> Trouble {
    use ureq::Error;
    match error {
        // The requested range starts at the end of the file.
        Error::StatusCode(416) => Trouble::StalePart,
        Error::StatusCode(status) => Trouble::Status(*status),
        Error::HostNotFound => Trouble::NoHub("its name cannot be resolved".to_owned()),
        Error::ConnectionFailed => Trouble::NoHub("no connection".to_owned()),
        Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Trouble::Broken(broken_by(error)),
            // ureq reports errors of rustls in this form.
            io::ErrorKind::InvalidData => Trouble::NoHub(format!("TLS failed ({error})")),
            // The text names the fact: "failed to lookup address information: …".
            _ => Trouble::NoHub(error.to_string().to_lowercase()),
        },
        Error::Timeout(_) => Trouble::Broken("a timeout".to_owned()),
        Error::Tls(reason) => Trouble::NoHub(format!("TLS failed ({reason})")),
        Error::Rustls(reason) => Trouble::NoHub(format!("TLS failed ({reason})")),
        Error::Pem(reason) => Trouble::NoHub(format!("TLS failed ({reason})")),
        Error::ConnectProxyFailed(reason) => Trouble::NoHub(reason.clone()),
        Error::InvalidProxyUrl => Trouble::NoHub("the proxy's address is not valid".to_owned()),
        Error::TooManyRedirects | Error::RedirectFailed => {
            Trouble::NotAHub("endless redirects".to_owned())
        }
        Error::Http(_) | Error::BadUri(_) => Trouble::NotAHub("a bad address".to_owned()),
        Error::BodyStalled => Trouble::Broken("the connection closed".to_owned()),
        _ => Trouble::NotAHub("an answer that is not valid HTTP".to_owned()),
    }
}

fn is_network(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

fn broken_by(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the connection closed".to_owned(),
        _ => error.to_string().to_lowercase(),
    }
}
