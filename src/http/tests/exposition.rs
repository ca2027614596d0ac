//! A strict reader of Prometheus' text format: what a scrape would forgive is refused here.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

/// A page of metrics, family by family.
#[derive(Debug, Default)]
pub struct Page {
    pub families: BTreeMap<String, Family>,
}

#[derive(Debug)]
pub struct Family {
    pub kind: String,
    pub samples: Vec<Sample>,
}

#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Page {
    /// Whether a series of this name is on it, histograms' parts included.
    pub fn has(&self, name: &str) -> bool {
        self.families.values().flat_map(|family| &family.samples).any(|sample| sample.name == name)
    }

    /// The value of a series without labels.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.families.values().flat_map(|family| &family.samples).find(|sample| sample.name == name).map(|sample| sample.value)
    }
}

fn is_name(name: &str, colon: bool) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || colon && c == ':';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// Reads a page.
pub fn parse(text: &str) -> Result<Page, String> {
    let (mut page, mut lines, mut seen) = (Page::default(), text.lines().peekable(), BTreeSet::new());
    if !text.ends_with('\n') {
        return Err("the last line does not end".into());
    }
    while let Some(line) = lines.next() {
        let bad = |why: &str| Err(format!("{why}: {line}"));
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else { return bad("no help") };
        if !help.ends_with('.') || help.len() < 8 {
            return bad("not a sentence");
        }
        let Some(kind) = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))) else { return bad("no type") };
        named(name, kind)?;
        let mut samples = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let sample = sample(line)?;
            let of = if kind == "histogram" {
                ["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")).to_vec()
            } else {
                vec![name.into()]
            };
            if !of.contains(&sample.name) {
                return Err(format!("not of {name}: {line}"));
            }
            if !seen.insert((sample.name.clone(), sample.labels.clone())) {
                return Err(format!("twice: {line}"));
            }
            if kind != "gauge" && sample.value < 0.0 || kind != "histogram" && sample.labels.iter().any(|(name, _)| name == "le") {
                return Err(format!("not of a {kind}: {line}"));
            }
            samples.push(sample);
        }
        if samples.is_empty() {
            return bad("no sample");
        }
        if kind == "histogram" {
            histogram(&samples)?;
        }
        if page.families.insert(name.into(), Family { kind: kind.into(), samples }).is_some() {
            return bad("the family stands twice");
        }
    }
    Ok(page)
}

/// The conventions on names.
fn named(name: &str, kind: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("{name}, a {kind}: {why}"));
    let words: Vec<&str> = name.split('_').collect();
    if !is_name(name, false) || words.contains(&"") {
        return bad("no name");
    }
    match kind {
        "counter" if !name.ends_with("_total") => return bad("a counter ends in _total"),
        "gauge" | "histogram" if ["_total", "_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end)) => {
            return bad("only a counter ends so");
        }
        "counter" | "gauge" | "histogram" => {}
        _ => return bad("an unknown type"),
    }
    let foreign = ["ms", "us", "ns", "kb", "mb", "kib", "mib", "milliseconds", "minutes", "hours", "percent", "kilobytes", "megabytes"];
    if words.iter().any(|word| foreign.contains(word)) {
        return bad("not a base unit");
    }
    let base = if kind == "counter" { &words[..words.len() - 1] } else { &words[..] };
    if base[..base.len() - 1].iter().any(|word| ["bytes", "seconds"].contains(word)) {
        return bad("the unit stands at the end");
    }
    if !name.starts_with("rockpool_") && !name.starts_with("process_") {
        return bad("whose?");
    }
    Ok(())
}

fn sample(line: &str) -> Result<Sample, String> {
    let bad = || format!("no sample: {line}");
    let (series, value) = line.rsplit_once(' ').ok_or_else(bad)?;
    let (name, inner) = match series.split_once('{') {
        Some((name, rest)) => (name, Some(rest.strip_suffix('}').ok_or_else(bad)?)),
        None => (series, None),
    };
    let value: f64 = value.parse().map_err(|_| bad())?;
    let mut labels = Vec::new();
    for label in inner.into_iter().flat_map(|inner| inner.split(',')) {
        let (name, text) = label.split_once('=').ok_or_else(bad)?;
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).ok_or_else(bad)?;
        if !is_name(name, false)
            || name.starts_with("__")
            || text.is_empty()
            || text.contains(['"', '\\'])
            || labels.iter().any(|(of, _)| of == name)
        {
            return Err(bad());
        }
        labels.push((name.to_owned(), text.to_owned()));
    }
    if !is_name(name, false) || !value.is_finite() || inner == Some("") {
        return Err(bad());
    }
    Ok(Sample { name: name.into(), labels, value })
}

/// Buckets grow, and the last is the count.
fn histogram(samples: &[Sample]) -> Result<(), String> {
    type Group = [Vec<(f64, f64)>; 3];
    let mut groups = BTreeMap::<Vec<(String, String)>, Group>::new();
    for sample in samples {
        let (le, rest): (Vec<_>, Vec<_>) = sample.labels.iter().cloned().partition(|(name, _)| name == "le");
        let place = ["_bucket", "_sum", "_count"].iter().position(|end| sample.name.ends_with(end)).unwrap_or(0);
        let bound = match &le[..] {
            [] => f64::NAN,
            [(_, text)] => text.replace("+Inf", "inf").parse().map_err(|_| format!("no bound: {text}"))?,
            _ => return Err("two bounds".into()),
        };
        groups.entry(rest).or_default()[place].push((bound, sample.value));
    }
    for (labels, [buckets, sum, count]) in groups {
        let grows = buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        let last = buckets.last().is_some_and(|(bound, n)| *bound == f64::INFINITY && count.first().is_some_and(|(_, count)| count == n));
        if !grows || !last || sum.len() != 1 || count.len() != 1 {
            return Err(format!("no histogram: {labels:?}"));
        }
    }
    Ok(())
}

#[test]
fn what_is_badly_made_is_refused() {
    let good = "# HELP rockpool_a_total How much.\n# TYPE rockpool_a_total counter\nrockpool_a_total{of=\"x\"} 3\nrockpool_a_total{of=\"y\"} 0.5\n";
    let buckets = "# HELP rockpool_t_seconds How long.\n# TYPE rockpool_t_seconds histogram\nrockpool_t_seconds_bucket{le=\"0.5\"} 1\n\
                   rockpool_t_seconds_bucket{le=\"+Inf\"} 3\nrockpool_t_seconds_sum 4\nrockpool_t_seconds_count 3\n";
    let page = parse(&format!("{good}{buckets}")).unwrap();
    assert!(page.has("rockpool_t_seconds_count") && page.value("rockpool_a_total") == Some(3.0) && page.families.len() == 2);
    for (whole, from, to) in [
        (good, "_total", ""),
        (good, "counter", "gauge"),
        (good, "counter", "untyped"),
        (good, "How much.", "How much"),
        (good, "\"y\"", "\"x\""),
        (good, "{of=\"y\"}", "{of=\"y}"),
        (good, "{of=\"y\"}", "{}"),
        (good, "{of=\"y\"}", "{le=\"1\"}"),
        (good, "0.5", "-1"),
        (good, "0.5", "NaN"),
        (good, "0.5\n", "0.5"),
        (good, "# TYPE rockpool_a_total counter\n", ""),
        (good, "rockpool_a", "rockpool_a_ms"),
        (good, "rockpool_a", "rockpool_bytes_a"),
        (good, "rockpool_a", "other_a"),
        (good, "rockpool_a", "rockpool_-a"),
        (buckets, "_count 3", "_count 4"),
        (buckets, "} 1", "} 9"),
        (buckets, "0.5", "x"),
        (buckets, "+Inf", "7"),
        (buckets, "rockpool_t_seconds_sum 4\n", ""),
    ] {
        let bad = whole.replace(from, to);
        assert!(bad != whole && parse(&bad).is_err(), "{bad}");
    }
    assert!(parse(&format!("{good}{good}")).is_err());
}
