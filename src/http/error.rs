//! What can go wrong with a request: one list of codes, which scripts may rely on.

/// Why a request is refused. Its name stands in the answer, `{"error": {"code": …, "message": …}}`, and never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request cannot be read, or could be read in two ways.
    BadRequest,
    /// A parameter of the path or the query is unknown or not as described.
    BadParameter,
    /// The body is not the JSON that is described.
    BadBody,
    /// A token is needed, or the one that is given does not hold.
    Unauthorized,
    /// Who asks may not do this.
    Forbidden,
    /// There is nothing at this path, or no such share, block, miner or ban.
    NotFound,
    /// The path is there, the method is not; `Allow` names those that are.
    MethodNotAllowed,
    /// The request did not come to an end in its time.
    Timeout,
    /// As things are it cannot be done.
    Conflict,
    /// The body is too long.
    TooLarge,
    /// The target is too long.
    UriTooLong,
    /// The body is not sent as JSON.
    UnsupportedMedia,
    /// Only `Expect: 100-continue` is understood.
    ExpectationFailed,
    /// The name in `Host` is none of this node's (DNS rebinding); `--http-host` adds one.
    Misdirected,
    /// So many of these are there already that no more are taken.
    Limit,
    /// The head is too long or has too many lines.
    HeadTooLarge,
    /// The node's own fault.
    Internal,
    /// As many as may be are served at this moment.
    Busy,
    /// The disk has no room for what was to be changed.
    DiskFull,
    /// Bodies come with a `Content-Length`, in no encoding.
    NotImplemented,
    /// Only HTTP/1.0 and HTTP/1.1 are spoken.
    BadVersion,
}

impl Code {
    /// All of them.
    pub const ALL: [Code; 21] = [
        Code::BadRequest,
        Code::BadParameter,
        Code::BadBody,
        Code::Unauthorized,
        Code::Forbidden,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::Timeout,
        Code::Conflict,
        Code::TooLarge,
        Code::UriTooLong,
        Code::UnsupportedMedia,
        Code::ExpectationFailed,
        Code::Misdirected,
        Code::Limit,
        Code::HeadTooLarge,
        Code::Internal,
        Code::Busy,
        Code::DiskFull,
        Code::NotImplemented,
        Code::BadVersion,
    ];

    /// The name that scripts see, and the status that goes with it.
    pub const fn told(self) -> (&'static str, u16) {
        match self {
            Code::BadRequest => ("bad_request", 400),
            Code::BadParameter => ("bad_parameter", 400),
            Code::BadBody => ("bad_body", 400),
            Code::Unauthorized => ("unauthorized", 401),
            Code::Forbidden => ("forbidden", 403),
            Code::NotFound => ("not_found", 404),
            Code::MethodNotAllowed => ("method_not_allowed", 405),
            Code::Timeout => ("timeout", 408),
            Code::Conflict => ("conflict", 409),
            Code::TooLarge => ("too_large", 413),
            Code::UriTooLong => ("uri_too_long", 414),
            Code::UnsupportedMedia => ("unsupported_media", 415),
            Code::ExpectationFailed => ("expectation_failed", 417),
            Code::Misdirected => ("misdirected", 421),
            Code::Limit => ("limit", 429),
            Code::HeadTooLarge => ("head_too_large", 431),
            Code::Internal => ("internal", 500),
            Code::Busy => ("busy", 503),
            Code::DiskFull => ("disk_full", 503),
            Code::NotImplemented => ("not_implemented", 501),
            Code::BadVersion => ("bad_version", 505),
        }
    }

    /// The HTTP status.
    pub const fn status(self) -> u16 {
        self.told().1
    }

    /// The name that scripts see.
    pub const fn name(self) -> &'static str {
        self.told().0
    }
}

/// The words of a status line.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_a_name_and_a_status_with_words() {
        let names: BTreeSet<&str> = Code::ALL.into_iter().map(Code::name).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.name().chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{code:?}");
            assert!((400..600).contains(&code.status()), "{code:?}");
            assert_eq!(reason(code.status()) == "Internal Server Error", code == Code::Internal, "{code:?} has no words of its own");
        }
    }
}
