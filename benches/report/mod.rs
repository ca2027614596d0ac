//! What every bench prints: a table for people, or with `--json` one object for scripts. `--quick` asks for a run under a minute.

/// One measured figure.
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The median over all rounds.
    pub value: f64,
    /// Unit of the value.
    pub unit: &'static str,
    /// At most this much, where there is a goal.
    pub goal: Option<f64>,
}

/// What the command line asks for.
pub struct Asked {
    /// One JSON object instead of the table.
    pub json: bool,
    /// Fewer and shorter rounds.
    pub quick: bool,
}

/// Reads the command line. Cargo adds `--bench`; other words are ignored.
pub fn asked() -> Asked {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    Asked { json: has("--json"), quick: has("--quick") }
}

/// Prints all figures.
pub fn print(asked: &Asked, figures: &[Figure]) {
    if asked.json {
        let rows = figures.iter().map(|figure| {
            let goal = figure.goal.map_or(serde_json::Value::Null, Into::into);
            let row = serde_json::json!({"value": figure.value, "unit": figure.unit, "goal": goal, "met": met(figure)});
            (figure.name.clone(), row)
        });
        println!("{}", serde_json::Value::Object(rows.collect()));
        return;
    }
    let width = figures.iter().map(|figure| figure.name.len()).max().unwrap_or_default();
    println!("{:<width$} {:>12} {:<10} {:>10} met", "figure", "value", "unit", "goal");
    for figure in figures {
        let goal = figure.goal.map_or("-".to_owned(), |goal| format!("{goal}"));
        let met = met(figure).map_or("-", |met| if met { "yes" } else { "no" });
        println!("{:<width$} {:>12.3} {:<10} {goal:>10} {met}", figure.name, figure.value, figure.unit);
    }
}

fn met(figure: &Figure) -> Option<bool> {
    figure.goal.map(|goal| figure.value <= goal)
}

/// The median; of an even number the later middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
