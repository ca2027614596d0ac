//! Two weeks of shares: what they take on the disk, in memory, at a start, in a sync, and what each thing done with them costs.
//!
//! The chain is a regtest one of 120,960 heights with honest coinbases (70 % N12, 20 % N46, 10 % N144; a tenth in layout front), merkle
//! branches 12 deep of bytes that do not compress, 200 miners of unequal hash rate of whom the largest choose harder targets, an uncle at
//! 3 % of the heights, and 2,016 Bitcoin blocks. It is made once, under the target directory. Regtest's subsidy has been halved 13 times at
//! its end, so dust weighs more than on main and every class draws.
//!
//! `--only TEXT` measures the rows alone whose name holds it; `--quick` takes a tenth of the chain.

mod fed;
mod figures;
mod line;
mod made;
mod node;
mod nodes;
mod own;
#[path = "../report/mod.rs"]
mod report;
mod serve;
mod spam;
mod tip;

use std::cell::OnceCell;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use rockpool_store::chain::Chain;
use rockpool_store::rocks::RocksKv;

use crate::fed::Fed;
use crate::made::Made;
use crate::report::{Asked, Figure, asked, print};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What the rows are measured with.
struct Bench {
    asked: Asked,
    made: Made,
    fed: OnceCell<Fed>,
}

impl Bench {
    /// The chain in a data directory, brought there by the organiser.
    fn fed(&self) -> Outcome<&Fed> {
        if self.fed.get().is_none() {
            let fed = Fed::new(&self.made)?;
            return Ok(self.fed.get_or_init(|| fed));
        }
        self.fed.get().ok_or_else(|| "it was just fed".into())
    }

    /// The chain of the data directory, and its rows.
    fn open(&self) -> Outcome<(Chain, Arc<RocksKv>)> {
        open(&self.made, self.fed()?.dir.path())
    }
}

/// The chain of a data directory, and its rows.
fn open(made: &Made, dir: &Path) -> Outcome<(Chain, Arc<RocksKv>)> {
    let kv = Arc::new(RocksKv::open(&dir.join("chain"))?);
    let chain = Chain::open(made.params, [1, 2], &*kv)?;
    Ok((chain, kv))
}

/// A group of rows.
type Group = fn(&Bench) -> Outcome<Vec<Figure>>;

/// Names of the groups, for `--only`, and how each is measured. Those that end with processes of their own come first.
const GROUPS: [(&str, Group); 9] = [
    ("sync in one process", fed::figures),
    ("disk, memory, restart of a node", nodes::restart),
    ("sync of two nodes", nodes::sync),
    ("index memory", nodes::index),
    ("shareheaders and lookups", serve::figures),
    ("payouts", tip::payouts),
    ("accept and reorg", tip::accept),
    ("own share in a sync", own::figures),
    ("spam", spam::figures),
];

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1));
    if let Some(dir) = after(nodes::INDEX_ROLE) {
        return nodes::play_index(Path::new(dir));
    }
    if let (Some(dir), Some(count)) = (after(spam::ROLE), after("--count")) {
        return spam::play(Path::new(dir), count.parse()?);
    }
    let only = after("--only").map_or("", |only| only);
    let asked = asked();
    let bench = Bench { made: Made::new(asked.quick)?, asked, fed: OnceCell::new() };
    eprintln!("{} heights, {}", bench.made.heights, line::mix(&bench.made.shares));
    let mut figures = Vec::new();
    for (_, group) in GROUPS.iter().filter(|(name, _)| name.contains(only)) {
        figures.extend(group(&bench)?);
    }
    print(&bench.asked, &figures);
    Ok(())
}
