//! A call to a service outside, and why it brought nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

/// A service that is asked. Each has a bulkhead of its own, so that one that hangs holds up no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Prices.
    CoinGecko,
    /// Balances of an account at an exchange.
    Okx,
    /// Balances on EVM chains, whichever.
    Evm,
    /// Keys of whoever signs users' tokens.
    Identity,
    /// The node's own bitcoind.
    Bitcoind,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 5] = [Service::CoinGecko, Service::Okx, Service::Evm, Service::Identity, Service::Bitcoind];

    /// As flags, metrics and the API name it.
    pub fn name(self) -> &'static str {
        match self {
            Service::CoinGecko => "coingecko",
            Service::Okx => "okx",
            Service::Evm => "evm",
            Service::Identity => "identity",
            Service::Bitcoind => "bitcoind",
        }
    }
}

/// Header lines of a try, made at the Unix time at which it starts: a signature is good for a moment only.
pub type Headers = Arc<dyn Fn(Duration) -> Vec<(&'static str, String)> + Send + Sync>;

/// What is asked.
#[derive(Clone)]
pub enum What {
    /// HTTP. A GET without a body, else a POST of JSON.
    Http {
        /// Where.
        url: String,
        /// Lines beside the usual ones.
        headers: Headers,
        /// JSON.
        body: Option<String>,
    },
    /// A call of the first bitcoind. What it brings is its `result`, as JSON.
    Rpc {
        /// The method.
        method: &'static str,
        /// Its parameters.
        params: Value,
    },
}

impl fmt::Debug for What {
    /// Without what may hold secrets: header lines, bodies, and all of the URL but where it leads. Some have their keys in the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Http { url, body, .. } => write!(f, "{} {}", if body.is_some() { "POST" } else { "GET" }, site(url)),
            What::Rpc { method, .. } => write!(f, "bitcoind {method}"),
        }
    }
}

/// Scheme, host and port of a URL; nothing of one that has no host.
pub(super) fn site(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}")
}

/// A call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Through whose bulkhead.
    pub service: Service,
    /// Whose failures it counts among: a host or a chain of the service. One that is down leaves the others alone.
    pub endpoint: Arc<str>,
    /// What is asked.
    pub what: What,
    /// Whether it may be tried again: it changes nothing.
    pub idempotent: bool,
    /// Time for one try, from connecting to the last byte.
    pub deadline: Duration,
    /// Bytes of an answer at most.
    pub bytes_max: u64,
}

/// A call that a stage wants made, beside all others. [`crate::jobs::UpstreamJob::Brought`] tells what came of it.
#[derive(Clone, Debug)]
pub struct Order {
    /// The stage's word for it.
    pub id: u64,
    /// The call.
    pub call: Call,
}

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// Others held the bulkhead for all the time that it could wait.
    #[error("{service} has {in_flight} calls under way, and none ended within {waited:?}")]
    Busy {
        /// Which.
        service: &'static str,
        /// Calls that were under way.
        in_flight: usize,
        /// How long it waited.
        waited: Duration,
    },
    /// It failed again and again, and is left alone for a while.
    #[error("{endpoint} has failed {failures} times and is not asked for another {left:?}")]
    Open {
        /// Which.
        endpoint: Arc<str>,
        /// How often in a row.
        failures: u32,
        /// Until the next probe.
        left: Duration,
    },
    /// No whole answer in time.
    #[error("no answer in time")]
    Timeout,
    /// It cannot be reached, or hung up.
    #[error("{0}")]
    Unreachable(String),
    /// It answered with a status other than success.
    #[error("HTTP status {status}{}", said.as_deref().map_or(String::new(), |said| format!(": {said}")))]
    Status {
        /// The status.
        status: u16,
        /// What it said, cut short and in one line.
        said: Option<String>,
        /// When it wants to be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// The answer is longer than it may be.
    #[error("an answer of more than {0} bytes")]
    TooLong(u64),
    /// The answer is not what was asked for.
    #[error("answer not understood: {0}")]
    Garbled(String),
    /// It understood and refused.
    #[error("refused: {0}")]
    Refused(String),
    /// The node stops.
    #[error("the node stops")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_in_what_logs_say_of_a_call() {
        let headers: Headers = Arc::new(|_| vec![("x-key", "secret".into())]);
        let what = |url: &str, body: Option<&str>| What::Http { url: url.into(), headers: headers.clone(), body: body.map(str::to_owned) };
        let call = Call {
            service: Service::Evm,
            endpoint: "base".into(),
            what: what("https://user:secret@rpc.example:8545/v3/secret?key=secret#secret", Some("secret")),
            idempotent: true,
            deadline: Duration::ZERO,
            bytes_max: 0,
        };
        let told = format!("{:?}", Order { id: 7, call });
        assert!(told.contains("POST https://rpc.example:8545") && !told.contains("secret"), "{told}");
        assert_eq!(format!("{:?}", what("/secret", None)), "GET ");
        let rpc = What::Rpc { method: "scantxoutset", params: "secret".into() };
        assert_eq!(format!("{rpc:?}"), "bitcoind scantxoutset");
    }
}
