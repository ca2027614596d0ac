//! "Did you mean …?": the known word that is nearest to a mistyped one.

/// Mistypings up to which a word is taken for another: a third of its letters, and never more than this.
const MISTYPED_MAX: usize = 3;
/// Bytes beyond which a word is not compared: no name is so long.
const COMPARED_BYTES_MAX: usize = 64;

/// `; did you mean X?`, or nothing where no known word is near.
pub fn hint<'a>(given: &str, known: impl IntoIterator<Item = &'a str>, dashes: &str) -> String {
    nearest(given, known).map_or(String::new(), |word| format!("; did you mean {dashes}{word}?"))
}

/// The known word that is nearest, if any is near.
fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if given.len() > COMPARED_BYTES_MAX {
        return None;
    }
    let most = (given.chars().count() / 3).clamp(1, MISTYPED_MAX);
    let near = known.into_iter().map(|word| (distance(given, word), word)).filter(|(distance, _)| *distance <= most);
    near.min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

/// Edit distance in which two letters that changed places count once (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let swap = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + swap);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_mistypings() {
        for (a, b, far) in
            [("", "", 0), ("a", "", 1), ("peers", "peers", 0), ("peesr", "peers", 1), ("per", "peer", 1), ("stats", "status", 1)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (far, far), "{a} {b}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn only_what_is_near_is_meant() {
        let known = ["run", "status", "shares", "peers"];
        assert_eq!(nearest("statsu", known), Some("status"));
        assert_eq!(nearest("rum", known), Some("run"));
        assert_eq!(nearest("share", known), Some("shares"));
        assert_eq!(nearest("fly", known), None);
        assert_eq!(nearest(&"x".repeat(COMPARED_BYTES_MAX + 1), known), None);
        assert_eq!(hint("stat", known, "--"), "");
        assert_eq!(hint("statu", known, "--"), "; did you mean --status?");
    }
}
