//! Draws what a bench has measured as an SVG, below the directory that `BATCHD_PLOTS` names.

use std::fmt::Write as _;
use std::path::PathBuf;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 250.0;
const ROW: f64 = 30.0;
const COLOURS: [&str; 6] = ["#2a78c2", "#d2691e", "#3a8f4d", "#8e5bb5", "#b5485d", "#6b7280"];
const STYLE: &str = "<style>text{font:13px system-ui,sans-serif;fill:#1f2937}.title{font-weight:600}.faint{fill:#6b7280}\
                     .axis{stroke:#9ca3af}.mark{stroke:#b5485d;stroke-dasharray:4 3}@media(prefers-color-scheme:dark){\
                     text{fill:#e5e7eb}.faint{fill:#9ca3af}}</style>";

/// One bar.
pub struct Bar {
    pub what: String,
    pub value: f64,
    /// What it should not go beyond, or should reach.
    pub mark: Option<f64>,
}

/// One line through points.
pub struct Line {
    pub what: String,
    pub points: Vec<(f64, f64)>,
}

/// Draws bars from zero, with the mark of each as a stroke across it.
pub fn bars(name: &str, title: &str, unit: &str, bars: &[Bar]) {
    let most =
        bars.iter().flat_map(|bar| [Some(bar.value), bar.mark]).flatten().fold(0.0, f64::max).max(1e-9);
    let scale = (WIDTH - LEFT - 90.0) / most;
    let mut svg = String::new();
    for (row, bar) in (0_u32..).zip(bars) {
        let top = 44.0 + ROW * f64::from(row);
        let length = bar.value * scale;
        let colour = COLOURS[row as usize % COLOURS.len()];
        let middle = top + 15.0;
        _ = write!(
            svg,
            "<text x=\"{:.0}\" y=\"{middle:.0}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT:.0}\" y=\"{top:.0}\" width=\"{length:.1}\" height=\"20\" rx=\"2\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{middle:.0}\">{} {unit}</text>",
            LEFT - 8.0,
            escaped(&bar.what),
            LEFT + length + 6.0,
            short(bar.value),
        );
        if let Some(mark) = bar.mark {
            let x = LEFT + mark * scale;
            _ = write!(
                svg,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.0}\" y2=\"{:.0}\"/>",
                top - 3.0,
                top + 23.0
            );
        }
    }
    write(name, title, 56.0 + ROW * f64::from(u32::try_from(bars.len()).unwrap_or(0)), &svg);
}

/// Draws lines over a logarithmic horizontal axis, from zero on; `mark`: what none of them should go beyond.
pub fn lines(name: &str, title: &str, across: &str, lines: &[Line], mark: Option<f64>) {
    const TOP: f64 = 50.0;
    const HEIGHT: f64 = 240.0;
    const FROM: f64 = 60.0;
    const LEGEND: f64 = 220.0;
    let points = || lines.iter().flat_map(|line| &line.points);
    let (least, most) =
        points().fold((f64::MAX, 0.0_f64), |(least, most), (x, _)| (least.min(*x), most.max(*x)));
    let highest = points().map(|(_, y)| *y).chain(mark).fold(0.0, f64::max).max(1e-9);
    let log = |x: f64| x.max(0.5).ln();
    let span = (log(most) - log(least)).max(1e-9);
    let x = |value: f64| FROM + (log(value) - log(least)) / span * (WIDTH - FROM - LEGEND);
    let y = |value: f64| TOP + HEIGHT - value / highest * HEIGHT;
    let mut svg = String::new();
    let (bottom, right) = (TOP + HEIGHT, WIDTH - LEGEND);
    _ = write!(
        svg,
        "<line class=\"axis\" x1=\"{FROM:.0}\" x2=\"{right:.0}\" y1=\"{bottom:.0}\" y2=\"{bottom:.0}\"/>"
    );
    for part in 0..=4 {
        let value = highest * f64::from(part) / 4.0;
        let (at, label) = (y(value), short(value));
        _ = write!(
            svg,
            "<text class=\"faint\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{label}</text>",
            FROM - 6.0,
            at + 4.0
        );
    }
    let mut ticks: Vec<f64> = points().map(|(x, _)| *x).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    for tick in ticks {
        _ = write!(
            svg,
            "<text class=\"faint\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            x(tick),
            bottom + 18.0,
            short(tick)
        );
    }
    _ = write!(
        svg,
        "<text class=\"faint\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
        right,
        bottom + 36.0,
        escaped(across)
    );
    if let Some(mark) = mark {
        let at = y(mark);
        _ = write!(
            svg,
            "<line class=\"mark\" x1=\"{FROM:.0}\" x2=\"{right:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
        );
    }
    for (row, line) in (0_u32..).zip(lines) {
        let colour = COLOURS[row as usize % COLOURS.len()];
        let path: Vec<String> =
            line.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let legend = TOP + 18.0 * f64::from(row);
        _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\
             <rect x=\"{:.0}\" y=\"{:.0}\" width=\"12\" height=\"4\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            path.join(" "),
            right + 16.0,
            legend,
            right + 34.0,
            legend + 6.0,
            escaped(&line.what)
        );
    }
    write(name, title, bottom + 48.0, &svg);
}

fn write(name: &str, title: &str, height: f64, inside: &str) {
    let Some(directory) = std::env::var_os("BATCHD_PLOTS") else { return };
    let title = escaped(title);
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\">\
         {STYLE}<text class=\"title\" x=\"10\" y=\"22\">{title}</text>{inside}</svg>\n"
    );
    std::fs::write(PathBuf::from(directory).join(format!("{name}.svg")), svg).unwrap();
}

fn short(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{:.0},{:03.0}", (value / 1000.0).floor(), value % 1000.0),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
