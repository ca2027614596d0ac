//! The points of charts: rates, miners and submits over an hour, a day, a week and a month.

use std::collections::{BTreeSet, VecDeque};

use rockpool_store::figures::{ChartRow, Point, delete_chart};
use rockpool_store::kv::Op;
use rockpool_store::limits::{CHART_POINTS_ROW, CHART_SPANS};

/// A chart: its name, seconds a point, points at most.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// As a query names it.
    pub name: &'static str,
    /// Seconds of a point.
    pub step_s: u32,
    /// Points at most.
    pub points: usize,
}

/// The charts there are.
pub const SPANS: [Span; CHART_SPANS] = [
    Span { name: "1h", step_s: 10, points: 360 },
    Span { name: "1d", step_s: 300, points: 288 },
    Span { name: "7d", step_s: 1_800, points: 336 },
    Span { name: "30d", step_s: 7_200, points: 360 },
];

impl Span {
    /// The row that a point stands in.
    fn row(self, time: u32) -> u32 {
        time / (self.step_s * CHART_POINTS_ROW as u32)
    }
}

/// What was seen in the time since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// How long that was.
    pub millis: u32,
    /// Hashes that our miners' submits stand for.
    pub hashes: f64,
    /// Their rate over five minutes: of ten seconds alone chance would draw the chart.
    pub own: f64,
    /// The pool's rate.
    pub pool: f64,
    /// Miners that are connected.
    pub miners: usize,
    /// Submits accepted.
    pub accepted: u32,
    /// Submits rejected.
    pub rejected: u32,
}

#[derive(Debug, Default)]
struct Chart {
    points: VecDeque<Point>,
    /// Rows that the disk does not have as they are.
    changed: BTreeSet<u32>,
}

/// All charts.
#[derive(Debug, Default)]
pub struct Charts {
    charts: [Chart; CHART_SPANS],
}

impl Charts {
    /// What was kept. A row whose points are not of its place is deleted with the next that is written.
    pub fn open(rows: &[ChartRow]) -> Charts {
        let mut charts = Charts::default();
        for row in rows {
            let place = usize::from(row.span);
            let (Some(chart), Some(span)) = (charts.charts.get_mut(place), SPANS.get(place)) else { continue };
            if row.points.iter().all(|point| point.time.is_multiple_of(span.step_s) && span.row(point.time) == row.number) {
                chart.points.extend(&row.points);
            } else {
                chart.changed.insert(row.number);
            }
        }
        charts
    }

    /// Adds what was seen to the points under way.
    pub fn add(&mut self, unix: u32, seen: &Seen) {
        for (index, (chart, span)) in self.charts.iter_mut().zip(SPANS).enumerate() {
            let mean = if seen.millis == 0 { 0.0 } else { seen.hashes / (f64::from(seen.millis) / 1_000.0) };
            let own = if index == 0 { seen.own } else { mean };
            chart.add(span, unix - unix % span.step_s, own, seen);
        }
    }

    /// The points of a chart, oldest first.
    pub fn points(&self, span: usize) -> impl ExactSizeIterator<Item = &Point> {
        self.charts[span.min(CHART_SPANS - 1)].points.iter()
    }

    /// The pool's mean rate over the day, as far as it was observed.
    pub fn pool_day(&self) -> Option<f64> {
        let (hashes, millis) = self.charts[1]
            .points
            .iter()
            .fold((0.0, 0.0), |(sum, time), point| (sum + point.pool * f64::from(point.observed_ms), time + f64::from(point.observed_ms)));
        (millis > 0.0).then(|| hashes / millis)
    }

    /// The rows that have changed since this was last asked.
    pub fn take(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        for ((chart, span), place) in self.charts.iter_mut().zip(SPANS).zip(0..) {
            for number in std::mem::take(&mut chart.changed) {
                let points: Vec<Point> = chart.points.iter().filter(|point| span.row(point.time) == number).copied().collect();
                let row = ChartRow { span: place, number, points };
                ops.push(if row.points.is_empty() { delete_chart(place, number) } else { row.put() });
            }
        }
        ops
    }
}

impl Chart {
    fn add(&mut self, span: Span, time: u32, own: f64, seen: &Seen) {
        // The clock was set back: what was noted of the future is wrong.
        while let Some(last) = self.points.back().filter(|last| last.time > time) {
            self.changed.insert(span.row(last.time));
            self.points.pop_back();
        }
        if self.points.back().is_none_or(|last| last.time < time) {
            self.points.push_back(Point { time, ..Point::default() });
        }
        let oldest = time.saturating_sub(span.step_s.saturating_mul(span.points as u32 - 1));
        while let Some(row) = self.points.front().filter(|first| first.time < oldest).map(|first| span.row(first.time)) {
            self.points.pop_front();
            if self.points.front().is_none_or(|next| span.row(next.time) != row) {
                self.changed.insert(row);
            }
        }
        let Some(point) = self.points.back_mut() else { return };
        self.changed.insert(span.row(time));
        let (before, more) = (f64::from(point.observed_ms), f64::from(seen.millis));
        if seen.millis > 0 {
            let mean = |old: f64, new: f64| (old * before + new * more) / (before + more);
            point.own = mean(point.own, own);
            point.pool = mean(point.pool, seen.pool);
            point.miners = mean(point.miners, seen.miners as f64);
        }
        point.observed_ms = point.observed_ms.saturating_add(seen.millis);
        point.accepted = point.accepted.saturating_add(seen.accepted);
        point.rejected = point.rejected.saturating_add(seen.rejected);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rockpool_store::figures::FigureRows;
    use rockpool_store::kv::{Family, Kv, MemKv};
    use rockpool_store::limits::CHART_ROWS_MAX;

    use super::*;

    const START: u32 = 1_700_006_400;

    fn seen(hashes: f64) -> Seen {
        Seen { millis: 10_000, hashes, own: hashes / 10.0, pool: 5e15, miners: 3, accepted: 2, rejected: 1 }
    }

    fn points(charts: &Charts, span: usize) -> Vec<Point> {
        charts.points(span).copied().collect()
    }

    fn again(kv: &MemKv) -> Charts {
        let rows = FigureRows::open(kv).unwrap();
        assert_eq!(rows.bad, []);
        Charts::open(&rows.charts)
    }

    #[test]
    fn each_chart_has_its_points_and_no_more() {
        let (mut charts, steps) = (Charts::default(), 40 * 8_640);
        (0..steps).for_each(|step| charts.add(START + 10 * step, &seen(1e13)));
        let last = START + 10 * (steps - 1);
        for (index, span) in SPANS.into_iter().enumerate() {
            let points = points(&charts, index);
            assert_eq!(points.len(), span.points);
            assert_eq!((points[0].time, points.last().unwrap().time), (points[0].time, last - last % span.step_s));
            assert!(points.windows(2).all(|two| two[1].time == two[0].time + span.step_s));
            let whole = &points[1];
            assert_eq!((whole.observed_ms, whole.accepted, whole.rejected), (span.step_s * 1_000, span.step_s / 5, span.step_s / 10));
            assert!((whole.own / 1e12 - 1.0).abs() < 1e-9 && (whole.pool / 5e15 - 1.0).abs() < 1e-9 && (whole.miners - 3.0).abs() < 1e-9);
        }
        assert!((charts.pool_day().unwrap() / 5e15 - 1.0).abs() < 1e-9);
        assert_eq!(Charts::default().pool_day(), None);
    }

    /// Only what has changed is written, and what is read back is what was written.
    #[test]
    fn a_restart_finds_the_charts_and_few_rows_are_written() {
        let (mut charts, kv) = (Charts::default(), MemKv::new());
        let mut bytes = Vec::new();
        for step in 0..32 * 8_640 {
            charts.add(START + 10 * step, &seen(1e13));
            if step % 60 == 59 {
                let ops = charts.take();
                let size = |op: &Op| if let Op::Put(_, key, value) = op { key.len() + value.len() } else { 0 };
                bytes.push(ops.iter().map(size).sum::<usize>());
                assert!(ops.len() <= 2 * CHART_SPANS);
                kv.write(&ops, true).unwrap();
            }
        }
        assert!(bytes.iter().max().unwrap() < &(5 * 2_500), "{:?} bytes in ten minutes", bytes.iter().max());
        assert!(FigureRows::open(&kv).unwrap().charts.len() <= CHART_ROWS_MAX);
        let mut read = again(&kv);
        // A row is deleted with its last point: at the old end some are left that are trimmed with the first new one.
        [&mut charts, &mut read].into_iter().for_each(|charts| charts.add(START + 320 * 8_640, &seen(0.0)));
        (0..CHART_SPANS).for_each(|span| assert_eq!(points(&read, span), points(&charts, span)));
        assert!(charts.take().len() <= 2 * CHART_SPANS && charts.take().is_empty());
    }

    #[test]
    fn a_point_goes_on_after_a_restart() {
        let (mut charts, kv) = (Charts::default(), MemKv::new());
        charts.add(START, &seen(1e13));
        kv.write(&charts.take(), true).unwrap();
        let mut charts = again(&kv);
        charts.add(START + 60, &seen(3e13));
        let day = points(&charts, 1);
        assert_eq!((day.len(), day[0].accepted, day[0].observed_ms), (1, 4, 20_000));
        assert!((day[0].own / 2e12 - 1.0).abs() < 1e-9, "the mean of both, by their time");
        // A gap is one: nobody invents points.
        charts.add(START + 3_000, &seen(0.0));
        assert_eq!(points(&charts, 1).iter().map(|point| point.time - START).collect::<Vec<_>>(), [0, 3_000]);
        charts.add(START + 3_000, &Seen::default());
        assert!(points(&charts, 0).iter().all(|point| point.own.is_finite()));
    }

    #[test]
    fn a_clock_that_is_set_back_takes_its_future_with_it() {
        let (mut charts, kv) = (Charts::default(), MemKv::new());
        (0..600).for_each(|step| charts.add(START + 86_400 * 365 + 10 * step, &seen(1e13)));
        kv.write(&charts.take(), true).unwrap();
        let mut charts = again(&kv);
        charts.add(START, &seen(1e13));
        (0..CHART_SPANS).for_each(|span| assert_eq!(points(&charts, span).iter().map(|point| point.time).collect::<Vec<_>>(), [START]));
        kv.write(&charts.take(), true).unwrap();
        assert_eq!(FigureRows::open(&kv).unwrap().charts.len(), CHART_SPANS, "and so it is on disk");
        // Points in a row that is not theirs.
        let wrong = ChartRow { span: 1, number: 3, points: vec![Point { time: START, ..Point::default() }] };
        let unaligned = ChartRow { span: 0, number: SPANS[0].row(START + 1), points: vec![Point { time: START + 1, ..Point::default() }] };
        let mut charts = Charts::open(&[wrong, unaligned]);
        assert!((0..CHART_SPANS).all(|span| charts.points(span).len() == 0));
        assert!(charts.take().iter().all(|op| matches!(op, Op::Delete(Family::Figures, _))));
    }
}
