//! What is kept of the node's own miners and of the pool on disk, over the years: what each worker did, the best hash of all, and the
//! points of charts.

use rockpool_net::wire::WireError;
use rockpool_net::wire::codec::{Reader, Writer};
use rockpool_net::wire::share::Script;

use crate::error::StoreError;
use crate::kv::{Family, Kv, Op};
use crate::limits::{CHART_POINTS_ROW, CHART_ROWS_MAX, CHART_SPANS, WORKER_NAME_BYTES, WORKERS_KEPT};

const TOTALS: u8 = 0;
const WORKER: u8 = 1;
const CHART: u8 = 2;

/// Windows over which hash rates are told.
pub const RATE_WINDOWS: usize = 7;
/// Reasons for which a submit is rejected.
pub const REASONS: usize = 5;

/// What was counted of a worker, or of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Submits accepted.
    pub accepted: u64,
    /// Submits rejected: stale, duplicate, low difficulty, malformed, other.
    pub rejected: [u32; REASONS],
    /// Shares of the share chain among those accepted.
    pub shares: u32,
    /// Bitcoin blocks among them.
    pub blocks: u32,
    /// The highest difficulty of a hash.
    pub best: f64,
    /// When it was first seen, Unix seconds.
    pub first_seen: u32,
    /// When its last submit was accepted, Unix seconds; zero for never.
    pub last_share: u32,
}

impl Tally {
    fn write(&self, writer: &mut Writer) {
        writer.u64(self.accepted);
        self.rejected.iter().for_each(|count| writer.u32(*count));
        writer.u32(self.shares);
        writer.u32(self.blocks);
        writer.u64(self.best.to_bits());
        writer.u32(self.first_seen);
        writer.u32(self.last_share);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Tally, WireError> {
        let accepted = reader.u64()?;
        let mut rejected = [0; REASONS];
        for count in &mut rejected {
            *count = reader.u32()?;
        }
        let (shares, blocks, best) = (reader.u32()?, reader.u32()?, amount(reader)?);
        Ok(Tally { accepted, rejected, shares, blocks, best, first_seen: reader.u32()?, last_share: reader.u32()? })
    }
}

/// The sums that a hash rate is made of, as they were when they were written.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RateSums {
    /// Hashes of the past, those of long ago counted less, by window.
    pub sums: [f64; RATE_WINDOWS],
    /// Seconds that the worker had been observed.
    pub observed: f64,
    /// When that was, Unix seconds.
    pub at: u32,
}

/// A worker.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerRow {
    /// Who is paid for what it does.
    pub script: Script,
    /// Its name, at most [`WORKER_NAME_BYTES`]; empty for who gives none.
    pub name: Box<str>,
    /// What it did.
    pub tally: Tally,
    /// How fast.
    pub rates: RateSums,
}

impl WorkerRow {
    /// The change that keeps it.
    pub fn put(&self) -> Op {
        let mut writer = Writer::with_capacity(124);
        self.tally.write(&mut writer);
        self.rates.sums.iter().for_each(|sum| writer.u64(sum.to_bits()));
        writer.u64(self.rates.observed.to_bits());
        writer.u32(self.rates.at);
        Op::Put(Family::Figures, worker_key(&self.script, &self.name), writer.into_bytes())
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<WorkerRow, WireError> {
        let (kind, rest) = key.split_first().ok_or(WireError::Bad("worker"))?;
        let (program, name) = rest.split_at_checked(if *kind == 0 { 20 } else { 32 }).ok_or(WireError::Bad("script"))?;
        let script = Script::from_parts(*kind, program).ok_or(WireError::Bad("script"))?;
        let name = std::str::from_utf8(name).ok().filter(|name| name.len() <= WORKER_NAME_BYTES).ok_or(WireError::Bad("name"))?;
        let mut reader = Reader::new(value);
        let tally = Tally::read(&mut reader)?;
        let mut rates = RateSums::default();
        for sum in &mut rates.sums {
            *sum = amount(&mut reader)?;
        }
        (rates.observed, rates.at) = (amount(&mut reader)?, reader.u32()?);
        reader.finish()?;
        Ok(WorkerRow { script, name: name.into(), tally, rates })
    }
}

/// The change that forgets a worker.
pub fn delete_worker(script: &Script, name: &str) -> Op {
    Op::Delete(Family::Figures, worker_key(script, name))
}

/// Whose hash was the best of all.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// Its difficulty.
    pub difficulty: f64,
    /// When it came, Unix seconds.
    pub time: u32,
    /// Who was to be paid for it.
    pub script: Script,
    /// The worker's name.
    pub name: Box<str>,
}

/// What was counted of all workers, those that are forgotten among them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TotalsRow {
    /// What they did.
    pub tally: Tally,
    /// The best hash of all.
    pub best: Option<Best>,
}

impl TotalsRow {
    /// The change that keeps it.
    pub fn put(&self) -> Op {
        let mut writer = Writer::with_capacity(160);
        self.tally.write(&mut writer);
        if let Some(best) = &self.best {
            writer.u64(best.difficulty.to_bits());
            writer.u32(best.time);
            writer.put(&worker_key(&best.script, &best.name)[1..]);
        }
        Op::Put(Family::Figures, vec![TOTALS], writer.into_bytes())
    }

    fn decode(value: &[u8]) -> Result<TotalsRow, WireError> {
        let mut reader = Reader::new(value);
        let tally = Tally::read(&mut reader)?;
        if reader.left() == 0 {
            return Ok(TotalsRow { tally, best: None });
        }
        let (difficulty, time) = (amount(&mut reader)?, reader.u32()?);
        let kind = reader.u8()?;
        let program = reader.take(if kind == 0 { 20 } else { 32 })?;
        let script = Script::from_parts(kind, program).ok_or(WireError::Bad("script"))?;
        let name = reader.take(reader.left().min(WORKER_NAME_BYTES))?;
        let name = std::str::from_utf8(name).map_err(|_| WireError::Bad("name"))?.into();
        reader.finish()?;
        Ok(TotalsRow { tally, best: Some(Best { difficulty, time, script, name }) })
    }
}

/// A point of a chart: means and counts over one step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// When the step began, Unix seconds.
    pub time: u32,
    /// Milliseconds of it that were observed.
    pub observed_ms: u32,
    /// Hashes a second of the node's own miners.
    pub own: f64,
    /// Hashes a second of the whole pool.
    pub pool: f64,
    /// Miners that were connected.
    pub miners: f64,
    /// Submits accepted.
    pub accepted: u32,
    /// Submits rejected.
    pub rejected: u32,
}

/// Bytes of a point.
const POINT_BYTES: usize = 40;

/// Points of a chart that stand in one row.
#[derive(Clone, Debug, PartialEq)]
pub struct ChartRow {
    /// Which chart, below [`CHART_SPANS`].
    pub span: u8,
    /// Which of its rows: time by as many steps as a row holds.
    pub number: u32,
    /// Ascending by time, at most [`CHART_POINTS_ROW`].
    pub points: Vec<Point>,
}

impl ChartRow {
    /// The change that keeps it.
    pub fn put(&self) -> Op {
        let mut writer = Writer::with_capacity(POINT_BYTES * self.points.len());
        for point in &self.points {
            writer.u32(point.time);
            writer.u32(point.observed_ms);
            [point.own, point.pool, point.miners].iter().for_each(|mean| writer.u64(mean.to_bits()));
            writer.u32(point.accepted);
            writer.u32(point.rejected);
        }
        Op::Put(Family::Figures, chart_key(self.span, self.number), writer.into_bytes())
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<ChartRow, WireError> {
        let (span, number) = key.split_first().ok_or(WireError::Bad("chart"))?;
        let number = u32::from_be_bytes(number.try_into().map_err(|_| WireError::Bad("chart"))?);
        if usize::from(*span) >= CHART_SPANS || value.len() > POINT_BYTES * CHART_POINTS_ROW {
            return Err(WireError::Bad("chart"));
        }
        let (mut reader, mut points) = (Reader::new(value), Vec::<Point>::new());
        while reader.left() > 0 {
            let (time, observed_ms) = (reader.u32()?, reader.u32()?);
            let (own, pool, miners) = (amount(&mut reader)?, amount(&mut reader)?, amount(&mut reader)?);
            let point = Point { time, observed_ms, own, pool, miners, accepted: reader.u32()?, rejected: reader.u32()? };
            if points.last().is_some_and(|last| last.time >= time) {
                return Err(WireError::Bad("order"));
            }
            points.push(point);
        }
        Ok(ChartRow { span: *span, number, points })
    }
}

/// The change that forgets a row of a chart.
pub fn delete_chart(span: u8, number: u32) -> Op {
    Op::Delete(Family::Figures, chart_key(span, number))
}

/// All that is stored of miners and of the pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FigureRows {
    /// What was counted of all workers.
    pub totals: TotalsRow,
    /// Workers; at most [`WORKERS_KEPT`].
    pub workers: Vec<WorkerRow>,
    /// Charts, by span and time; at most [`CHART_ROWS_MAX`].
    pub charts: Vec<ChartRow>,
    /// What deletes the rows that do not decode, or are more than there may be; at most [`WORKERS_KEPT`] of them.
    pub bad: Vec<Op>,
}

impl FigureRows {
    /// What is stored. A row that does not decode takes nothing from the others.
    pub fn open(kv: &dyn Kv) -> Result<FigureRows, StoreError> {
        let mut rows = FigureRows::default();
        kv.scan(Family::Figures, &[], &mut |key, value| {
            if rows.take(key, value).is_none() && rows.bad.len() < WORKERS_KEPT {
                rows.bad.push(Op::Delete(Family::Figures, key.to_vec()));
            }
            true
        })?;
        Ok(rows)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key.split_first()? {
            (&TOTALS, []) => self.totals = TotalsRow::decode(value).ok()?,
            (&WORKER, key) if self.workers.len() < WORKERS_KEPT => self.workers.push(WorkerRow::decode(key, value).ok()?),
            (&CHART, key) if self.charts.len() < CHART_ROWS_MAX => self.charts.push(ChartRow::decode(key, value).ok()?),
            _ => return None,
        }
        Some(())
    }
}

/// A number that can be counted on: neither negative nor without end.
fn amount(reader: &mut Reader<'_>) -> Result<f64, WireError> {
    let amount = f64::from_bits(reader.u64()?);
    if amount.is_finite() && amount >= 0.0 { Ok(amount) } else { Err(WireError::Bad("amount")) }
}

/// `01` ‖ kind u8 ‖ program ‖ name.
fn worker_key(script: &Script, name: &str) -> Vec<u8> {
    [&[WORKER, script.type_byte()], script.program(), name.as_bytes()].concat()
}

/// `02` ‖ span u8 ‖ number u32, big-endian.
fn chart_key(span: u8, number: u32) -> Vec<u8> {
    [&[CHART, span], &number.to_be_bytes()[..]].concat()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::kv::MemKv;

    fn tally(number: u32) -> Tally {
        let rejected = [1, 2, 3, 4, number];
        Tally { accepted: 1 << 40, rejected, shares: 7, blocks: 1, best: 1e12 + f64::from(number), first_seen: number, last_share: 9 }
    }

    fn worker(number: u32) -> WorkerRow {
        let script = match number % 3 {
            0 => Script::P2wpkh([number as u8; 20]),
            1 => Script::P2wsh(rockpool_net::sha256::sha256d(&number.to_be_bytes())),
            _ => Script::P2tr(rockpool_net::sha256::sha256d(&number.to_be_bytes())),
        };
        let rates = RateSums { sums: [0.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6e20], observed: 77.25, at: 5 };
        let name = if number == 0 { String::new() } else { format!("rig é {number}") };
        WorkerRow { script, name: name.into(), tally: tally(number), rates }
    }

    fn chart(span: u8, number: u32, points: u32) -> ChartRow {
        let point = |time| Point { time, observed_ms: 10, own: 1e12, pool: 1e15, miners: 2.5, accepted: 3, rejected: time };
        ChartRow { span, number, points: (0..points).map(point).collect() }
    }

    fn rows() -> FigureRows {
        let best = Best { difficulty: 5e9, time: 8, script: worker(1).script, name: "the best".into() };
        let mut workers: Vec<WorkerRow> = (0..6).map(worker).collect();
        workers.sort_by_key(|row| worker_key(&row.script, &row.name));
        let charts = vec![chart(0, 255, 1), chart(0, 256, 60), chart(3, 2, 0)];
        FigureRows { totals: TotalsRow { tally: tally(1), best: Some(best) }, workers, charts, bad: Vec::new() }
    }

    fn ops(rows: &FigureRows) -> Vec<Op> {
        let mut ops = vec![rows.totals.put()];
        ops.extend(rows.workers.iter().map(WorkerRow::put));
        ops.extend(rows.charts.iter().map(ChartRow::put));
        ops
    }

    #[test]
    fn rows_read_back_and_a_bad_one_hides_no_other() {
        let (kv, rows) = (MemKv::new(), rows());
        let ops = ops(&rows);
        kv.write(&ops, true).unwrap();
        assert_eq!(FigureRows::open(&kv).unwrap(), rows);
        let count = |rows: &FigureRows| rows.workers.len() + rows.charts.len() + usize::from(rows.totals != TotalsRow::default());
        for op in &ops {
            let Op::Put(family, key, value) = op else { continue };
            // Cut, followed by a byte, or with a number that is none.
            let is_totals = key[0] == TOTALS;
            let mut wrong = vec![value[..value.len().saturating_sub(1).min(3)].to_vec(), [&value[..], &[0xff; 65]].concat()];
            wrong.push([&value[..value.len().min(8)], &[0xff; 33]].concat());
            for wrong in wrong.into_iter().filter(|wrong| !wrong.is_empty()) {
                kv.write(&[Op::Put(*family, key.clone(), wrong)], true).unwrap();
                let read = FigureRows::open(&kv).unwrap();
                assert_eq!(read.bad, [Op::Delete(*family, key.clone())]);
                assert_eq!((count(&read), read.totals == TotalsRow::default()), (count(&rows) - 1, is_totals));
            }
            kv.write(std::slice::from_ref(op), true).unwrap();
        }
        let long = [&[WORKER, 0][..], &[1; 20], &[b'x'; WORKER_NAME_BYTES + 1]].concat();
        let strange = [vec![], vec![9], vec![TOTALS, 0], vec![WORKER], vec![WORKER, 3], vec![CHART, CHART_SPANS as u8, 0, 0, 0, 0], long];
        kv.write(&strange.map(|key| Op::Put(Family::Figures, key, vec![0; 124])), true).unwrap();
        let read = FigureRows::open(&kv).unwrap();
        assert_eq!(read.bad.len(), 7);
        kv.write(&read.bad, true).unwrap();
        assert_eq!(FigureRows::open(&kv).unwrap(), rows);
        let mut gone = vec![Op::Delete(Family::Figures, vec![TOTALS])];
        gone.extend(rows.workers.iter().map(|row| delete_worker(&row.script, &row.name)));
        gone.extend(rows.charts.iter().map(|row| delete_chart(row.span, row.number)));
        kv.write(&gone, true).unwrap();
        assert_eq!(FigureRows::open(&kv).unwrap(), FigureRows::default());
    }

    #[test]
    fn no_number_is_negative_or_endless() {
        let kv = MemKv::new();
        for wrong in [-1.0, f64::NAN, f64::INFINITY] {
            let row = worker(1);
            let tally = WorkerRow { tally: Tally { best: wrong, ..row.tally }, ..row.clone() };
            let rates = WorkerRow { rates: RateSums { observed: wrong, ..row.rates }, ..row.clone() };
            let mut point = chart(1, 1, 2);
            point.points[1].miners = wrong;
            for op in [tally.put(), rates.put(), point.put()] {
                kv.write(std::slice::from_ref(&op), true).unwrap();
                let read = FigureRows::open(&kv).unwrap();
                assert_eq!((read.workers.len() + read.charts.len(), read.bad.len()), (0, 1));
                kv.write(&read.bad, true).unwrap();
            }
        }
        let mut back = chart(1, 1, 3);
        back.points.swap(0, 1);
        kv.write(&[back.put()], true).unwrap();
        assert_eq!(FigureRows::open(&kv).unwrap().bad.len(), 1, "time goes on");
    }

    #[test]
    fn more_rows_than_there_may_be_are_left_and_deleted() {
        let (kv, over) = (MemKv::new(), 3);
        let script = Script::P2wpkh([1; 20]);
        let one = |number: usize| WorkerRow { script, name: format!("{number:08}").into(), ..worker(0) };
        kv.write(&(0..WORKERS_KEPT + over).map(|number| one(number).put()).collect::<Vec<_>>(), true).unwrap();
        kv.write(&(0..(CHART_ROWS_MAX + over) as u32).map(|number| chart(0, number, 1).put()).collect::<Vec<_>>(), true).unwrap();
        let rows = FigureRows::open(&kv).unwrap();
        assert_eq!((rows.workers.len(), rows.charts.len(), rows.bad.len()), (WORKERS_KEPT, CHART_ROWS_MAX, 2 * over));
        kv.write(&rows.bad, true).unwrap();
        assert_eq!(FigureRows::open(&kv).unwrap(), FigureRows { bad: Vec::new(), ..rows });
        // What one row of a chart holds at most.
        kv.write(&[chart(1, 1, CHART_POINTS_ROW as u32).put(), chart(1, 2, CHART_POINTS_ROW as u32 + 1).put()], true).unwrap();
        kv.write(&(0..CHART_ROWS_MAX as u32).map(|number| delete_chart(0, number)).collect::<Vec<_>>(), true).unwrap();
        let rows = FigureRows::open(&kv).unwrap();
        assert_eq!((rows.charts.len(), rows.bad.len()), (1, 1));
    }
}
