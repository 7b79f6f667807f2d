//! What hf-hub's errors mean for the download.
//!
//! The texts are written here rather than taken from the errors: those can quote an address with
//! the user name, password or signature in it.

use std::io;

use hf_hub::api::sync::ApiError;

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// An HTTP status.
    Status(u16),
    /// The kept part of an earlier run is as long as the file or longer.
    StalePart,
    /// No connection, or none that carries HTTP to the hub; asking again at once is no use.
    NoHub(String),
    /// The connection broke; asking again may help.
    Broken(String),
    /// Something answers, in another way than a hub.
    NotAHub(String),
    /// Another process holds the file.
    Locked,
    /// The cache directory cannot be used.
    Disk(String),
}

/// Reads one of hf-hub's errors.
pub fn read(error: &ApiError) -> Trouble {
    match error {
        ApiError::RequestError(error) => read_request(error),
        // The body is copied to the part file in one go, so the disk and the network fail alike.
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
        // The range asked for starts at the end of the file.
        Error::StatusCode(416) => Trouble::StalePart,
        Error::StatusCode(status) => Trouble::Status(*status),
        Error::HostNotFound => Trouble::NoHub("its name cannot be resolved".to_owned()),
        Error::ConnectionFailed => Trouble::NoHub("no connection".to_owned()),
        Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Trouble::Broken(broken_by(error)),
            // The form in which rustls's errors reach us.
            io::ErrorKind::InvalidData => Trouble::NoHub(format!("TLS failed ({error})")),
            // "failed to lookup address information: …" already names the fact.
            _ => Trouble::NoHub(error.to_string().to_lowercase()),
        },
        Error::Timeout(_) => Trouble::Broken("a timeout".to_owned()),
        Error::Tls(reason) => Trouble::NoHub(format!("TLS failed ({reason})")),
        Error::Rustls(reason) => Trouble::NoHub(format!("TLS failed ({reason})")),
        Error::Pem(reason) => Trouble::NoHub(format!("TLS failed ({reason})")),
        Error::ConnectProxyFailed(reason) => Trouble::NoHub(reason.clone()),
        Error::InvalidProxyUrl => Trouble::NoHub("the proxy's address is not valid".to_owned()),
        Error::TooManyRedirects | Error::RedirectFailed => {
            Trouble::NotAHub("redirects without an end".to_owned())
        }
        Error::Http(_) | Error::BadUri(_) => Trouble::NotAHub("a bad address".to_owned()),
        Error::BodyStalled => Trouble::Broken("the connection closed".to_owned()),
        _ => Trouble::NotAHub("an answer that is not HTTP as expected".to_owned()),
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
