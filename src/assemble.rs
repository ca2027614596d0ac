//! The only wiring: store, chain, stages, hub, reactor and node become one running whole, and end in order.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_store::kv::Kv;
use rockpool_store::params::{Params, params};
use rockpool_store::schema;
use rockpool_workers::crew::{Bitcoin, Crew, CrewConfig};
use rockpool_workers::embedded::Tip;
use rockpool_workers::jobs::Answer;
use rockpool_workers::outside::Check;

use crate::config::Config;
use crate::exit::Failure;
use crate::signals::Heart;
use crate::status::Listen;
