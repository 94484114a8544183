//! A run as one HTML page: plots and tables, no script, no other file, readable on a phone and in print.
//!
//! The colours and letters are those of the conformance report. What a proxy sent is hostile here: it is
//! escaped once, in `text`.

use std::fmt::Write as _;

use super::result::{Cell, Gate, Outcome, Process, Route, Run, Stage, Tick, Times, Trend};
use crate::report::push_escaped;

mod memory;
mod plot;
mod unit;

use plot::{Axis, Line, Plot};
use unit::{bytes, count, millis, rate, share, tick};

/// Renders a run as a page.
#[must_use]
pub fn page(run: &Run) -> String {
    let mut html = String::new();
    let name = text(&format!("{} – {}", run.scenario, run.target));
    let _ = writeln!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{name}</title><style>{}{}</style></head><body>",
        include_str!("../report/page.css"),
        include_str!("page/page.css"),
    );
    header(run, &name, &mut html);
    html.push_str("<main>\n");
    gates(run, &mut html);
    latency(run, &mut html);
    over_time(run, &mut html);
    stages(run, &mut html);
    outcomes(run, &mut html);
    for process in &run.processes {
        memory::process(run, process, &mut html);
    }
    examples(run, &mut html);
    html.push_str("</main></body></html>\n");
    html
}

fn header(run: &Run, name: &str, html: &mut String) {
    let (class, word) = if run.passed() { ("good", "passed") } else { ("bad", "failed") };
    let _ = write!(html, "<header><h1>{name}</h1><p class=\"verdict {class}\">{word}</p>");
    if let Some(why) = &run.cut_short {
        let sum = |number: fn(&Stage) -> u64| count(run.stages.iter().map(number).sum());
        let (unsent, unfinished) = (sum(|stage| stage.unsent), sum(|stage| stage.unfinished));
        let _ = write!(
            html,
            "<p class=\"error\">Cut short: {}. {unsent} requests were never sent, {unfinished} were in flight.</p>",
            text(why)
        );
    }
    let all = run.merged(|_| true);
    let ok = run.merged(|cell| cell.outcome == Outcome::Ok);
    let machine = &run.machine;
    let facts = [
        ("requests", count(all.count)),
        ("ended well", share(ok.count, all.count)),
        ("events checked", count(all.events)),
        ("received", bytes(all.bytes as f64)),
        ("took", format!("{:.1} s", run.seconds)),
        ("rate", rate(all.count as f64 / run.seconds.max(0.001))),
        // To the second.
        ("began", run.started.split('.').next().unwrap_or_default().replace('T', " ")),
        ("seed", run.seed.to_string()),
        ("machine", format!("{}, {} processors, {}", machine.processor, machine.processors, machine.kernel)),
        ("driver", driver(run)),
        ("refused for want of room", pressure(run)),
    ];
    html.push_str("<dl>");
    for (name, value) in facts {
        let _ = write!(html, "<div><dt>{name}</dt><dd>{}</dd></div>", text(&value));
    }
    html.push_str("</dl></header>\n");
}

fn driver(run: &Run) -> String {
    let cost = &run.driver;
    let seconds = cost.user_seconds + cost.system_seconds;
    let threads = if cost.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", cost.threads) };
    let each = if cost.requests == 0 { 0.0 } else { seconds * 1e6 / cost.requests as f64 };
    format!("{seconds:.2} s of CPU on {threads}, {each:.1} µs a request ({})", run.machine.build)
}

fn pressure(run: &Run) -> String {
    let pressure = &run.pressure;
    let log = if pressure.log_read { "" } else { ", no run log read" };
    format!("{} ({} replies{log})", count(pressure.causes), count(pressure.refusals))
}

fn gates(run: &Run, html: &mut String) {
    if run.gates.is_empty() {
        html.push_str("<p class=\"quiet\">No limits were set.</p>\n");
        return;
    }
    html.push_str(
        "<h2>Limits</h2><div class=\"wide\"><table><thead><tr><th>limit</th><th>stage</th>\
         <th class=\"number\">measured</th><th class=\"number\">at most</th><th>verdict</th></tr></thead><tbody>\n",
    );
    for gate in &run.gates {
        let (class, word) = if gate.passed { ("good", "kept") } else { ("bad", "broken") };
        let measured = gate.value.map_or("nothing".to_owned(), |value| of_gate(gate, value));
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
             <td class=\"{class}\">{word}</td></tr>",
            text(&gate.name),
            text(gate.stage.as_deref().unwrap_or("all")),
            text(&measured),
            text(&of_gate(gate, gate.limit)),
        );
    }
    html.push_str("</tbody></table></div>\n");
}

/// A value in the unit of its limit; one without is a share.
fn of_gate(gate: &Gate, value: f64) -> String {
    match gate.unit.as_str() {
        "ms" => millis(value),
        "" => format!("{:.2} %", value * 100.0),
        unit => format!("{value:.3} {unit}"),
    }
}

fn latency(run: &Run, html: &mut String) {
    let ok = run.merged(|cell| cell.outcome == Outcome::Ok);
    let lines = |named: &[(&str, &'static str, &Times)]| -> Vec<Line> {
        named.iter().map(|(name, class, times)| percentiles(name, class, times)).collect()
    };
    let times = [
        ("response time, from when it was due", "a", &ok.response),
        ("service time, from when it was sent", "b", &ok.service),
    ];
    let first = [
        ("first byte", "a", &ok.first_byte),
        ("first content event", "b", &ok.first_content),
        ("gap between events", "c", &ok.gap),
    ];
    let added = [("to the first event", "a", &ok.added), ("to a later event", "b", &ok.added_event)];
    html.push_str("<h2>Times of the requests that ended well</h2><div class=\"plots\">\n");
    tail_plot("From request to end of reply", lines(&times), ok.count).write(html);
    tail_plot("Within the reply", lines(&first), ok.count).write(html);
    let title = "Added on the way, by one clock at both ends";
    tail_plot(title, lines(&added), ok.added_event.0.len().max(ok.added.0.len())).write(html);
    html.push_str("</div>\n<div class=\"wide\"><table><thead><tr><th></th>");
    for name in QUANTILES.map(|(_, name)| name) {
        let _ = write!(html, "<th class=\"number\">{name}</th>");
    }
    html.push_str("</tr></thead><tbody>\n");
    let rows = [
        ("response time", &ok.response),
        ("service time", &ok.service),
        ("first byte", &ok.first_byte),
        ("first content event", &ok.first_content),
        ("gap between events", &ok.gap),
        ("added to the first event", &ok.added),
        ("added to a later event", &ok.added_event),
    ];
    for (name, times) in rows.into_iter().filter(|(_, times)| !times.0.is_empty()) {
        let _ = write!(html, "<tr><th>{name}</th>");
        for (quantile, _) in QUANTILES {
            let _ = write!(html, "<td class=\"number\">{}</td>", at(times, quantile));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
}

const QUANTILES: [(f64, &str); 6] =
    [(0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "longest")];

/// A quantile with its unit; a dash without any.
fn at(times: &Times, quantile: f64) -> String {
    times.millis(quantile).map_or("–".to_owned(), millis)
}

/// A line of percentiles, from 0 to the last that the samples can tell.
fn percentiles(name: &str, class: &'static str, times: &Times) -> Line {
    let samples = times.0.len();
    let mut points = Vec::new();
    if samples > 0 {
        let nines = (samples.max(10) as f64).log10().clamp(1.0, 6.0);
        let steps = 160;
        points.extend((0..=steps).filter_map(|step| {
            let quantile = 1.0 - 10_f64.powf(-nines * f64::from(step) / f64::from(steps));
            // The plot is logarithmic, and the histogram's unit is its smallest time.
            Some((quantile, times.millis(quantile)?.max(0.001)))
        }));
    }
    Line { name: name.to_owned(), class, points }
}

fn tail_plot(title: &str, lines: Vec<Line>, samples: u64) -> Plot {
    let values = || lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let y = Axis::log("time, logarithmic", least, most, tick);
    Plot { title: title.to_owned(), x: Axis::tail(samples), y, bands: Vec::new(), lines, marks: Vec::new() }
}

/// Most points of a line over time.
const POINTS: usize = 400;

fn over_time(run: &Run, html: &mut String) {
    let per_second = |value: u64| value as f64 / run.tick_seconds.max(1e-9);
    let line = |name: &str, class, value: &dyn Fn(&Tick) -> f64| Line {
        name: name.to_owned(),
        class,
        points: reduced(ticks(run, value)),
    };
    let rates = vec![
        line("meant to begin", "d", &|tick| per_second(tick.due)),
        line("ended well", "a", &|tick| per_second(tick.ok)),
        line("ended otherwise", "bad", &|tick| per_second(tick.not_ok)),
    ];
    let flight = vec![
        line("in flight", "a", &|tick| tick.in_flight as f64),
        line("due and not yet sent", "b", &|tick| tick.late as f64),
    ];
    let quantile = |quantile: f64| {
        move |tick: &Tick| tick.response.millis(quantile).map_or(f64::NAN, |time| time.max(0.001))
    };
    let times = vec![
        line("p50", "a", &quantile(0.5)),
        line("p95", "b", &quantile(0.95)),
        line("longest", "d", &quantile(1.0)),
    ];
    html.push_str("<h2>Over time</h2><div class=\"plots\">\n");
    time_plot(run, "Rate", "requests a second", rates).write(html);
    time_plot(run, "At once", "requests", flight).write(html);
    let values = || times.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    let finite = |value: &f64| value.is_finite();
    let least = values().filter(finite).fold(f64::INFINITY, f64::min);
    let y = Axis::log("time, logarithmic", least, values().filter(finite).fold(0.0, f64::max), tick);
    let mut plot = time_plot(run, "Response time", "", times);
    plot.y = y;
    plot.write(html);
    html.push_str("</div>\n");
}

/// A value of every tick of the run; zero for those in which nothing was.
fn ticks(run: &Run, value: &dyn Fn(&Tick) -> f64) -> Vec<(f64, f64)> {
    let last = run.ticks.last().map_or(0, |tick| tick.index);
    // A run is capped at hours; what a file claims is not.
    let most = last.min(100_000);
    let mut points: Vec<(f64, f64)> = Vec::with_capacity(run.ticks.len());
    let empty = Tick::new(0);
    let mut next = 0;
    for tick in run.ticks.iter().filter(|tick| tick.index <= most) {
        for index in next..tick.index {
            points.push(((index as f64 + 0.5) * run.tick_seconds, value(&empty)));
        }
        points.push(((tick.index as f64 + 0.5) * run.tick_seconds, value(tick)));
        next = tick.index + 1;
    }
    points
}

/// At most [`POINTS`], each the highest of its neighbours: a spike must not vanish.
fn reduced(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points;
    }
    let size = points.len().div_ceil(POINTS);
    let highest = |chunk: &[(f64, f64)]| chunk.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    points.chunks(size).filter_map(highest).collect()
}

/// A plot over the time of the run, with the stages marked.
fn time_plot(run: &Run, title: &str, label: &'static str, lines: Vec<Line>) -> Plot {
    let most = lines.iter().flat_map(|line| line.points.iter().map(|point| point.1)).fold(0.0, f64::max);
    // One stage needs no mark.
    let stages = if run.stages.len() > 1 { &run.stages[..] } else { &[] };
    Plot {
        title: title.to_owned(),
        x: Axis::time(run.seconds),
        y: Axis::linear(label, most, |at| count(at.max(0.0) as u64)),
        bands: Vec::new(),
        lines,
        marks: stages.iter().map(|stage| (stage.from, stage.name.clone())).collect(),
    }
}

fn stages(run: &Run, html: &mut String) {
    html.push_str(
        "<h2>Stages</h2><div class=\"wide\"><table><thead>\
         <tr><th rowspan=\"2\">stage</th><th rowspan=\"2\">route</th>\
         <th rowspan=\"2\" class=\"number\">requests</th><th rowspan=\"2\" class=\"number\">not ok</th>\
         <th rowspan=\"2\" class=\"number\">ok a second</th><th rowspan=\"2\" class=\"number\">most at once</th>\
         <th colspan=\"3\" class=\"group\">response time</th><th colspan=\"3\" class=\"group\">service time</th>\
         <th colspan=\"2\" class=\"group\">first byte</th></tr><tr>",
    );
    for name in ["p50", "p95", "p99", "p50", "p95", "p99", "p50", "p95"] {
        let _ = write!(html, "<th class=\"number\">{name}</th>");
    }
    html.push_str("</tr></thead><tbody>\n");
    for (index, stage) in run.stages.iter().enumerate() {
        for route in Route::ALL {
            let here = |cell: &Cell| cell.stage == index && cell.route == route;
            let all = run.merged(here);
            let ok = run.merged(|cell| here(cell) && cell.outcome == Outcome::Ok);
            if all.count == 0 {
                continue;
            }
            let wrong = all.count - ok.count;
            let class = if wrong > 0 { "number bad" } else { "number" };
            let _ = write!(
                html,
                "<tr><th>{}<small>{}</small></th><td>{}</td><td class=\"number\">{}</td>\
                 <td class=\"{class}\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>",
                text(&stage.name),
                text(&stage.executor),
                route.name(),
                count(all.count),
                count(wrong),
                rate(ok.count as f64 / (stage.to - stage.from).max(0.001)),
                count(stage.peak),
            );
            for times in [&ok.response, &ok.service] {
                for quantile in [0.5, 0.95, 0.99] {
                    let _ = write!(html, "<td class=\"number\">{}</td>", at(times, quantile));
                }
            }
            for quantile in [0.5, 0.95] {
                let _ = write!(html, "<td class=\"number\">{}</td>", at(&ok.first_byte, quantile));
            }
            html.push_str("</tr>\n");
        }
    }
    html.push_str("</tbody></table></div>\n");
}

fn outcomes(run: &Run, html: &mut String) {
    html.push_str(
        "<h2>How requests ended</h2><div class=\"wide\"><table><thead><tr><th>stage</th><th>route</th>\
         <th>outcome</th><th class=\"number\">requests</th><th class=\"number\">share of stage</th>\
         <th class=\"number\">response p50</th><th class=\"number\">longest</th></tr></thead><tbody>\n",
    );
    for cell in run.cells.iter().filter(|cell| cell.count > 0) {
        let stage = run.stages.get(cell.stage).map_or("", |stage| &stage.name);
        let class = if cell.outcome == Outcome::Ok { "good" } else { "bad" };
        let all = run.merged(|other| other.stage == cell.stage).count;
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td>{}</td><td class=\"{class}\">{}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
            text(stage),
            cell.route.name(),
            cell.outcome.name(),
            count(cell.count),
            share(cell.count, all),
            at(&cell.response, 0.5),
            at(&cell.response, 1.0),
        );
    }
    html.push_str("</tbody></table></div>\n");
}

fn examples(run: &Run, html: &mut String) {
    if run.examples.is_empty() {
        return;
    }
    html.push_str("<h2>What went wrong, the first of each kind</h2>\n");
    for example in &run.examples {
        let stage = run.stages.get(example.stage).map_or("", |stage| &stage.name);
        let _ = writeln!(
            html,
            "<section class=\"bad\"><h3>{}</h3><p class=\"quiet\">{} in {}</p><pre>{}</pre></section>",
            example.outcome.name(),
            example.route.name(),
            text(stage),
            text(&example.text),
        );
    }
}

/// The verdict on a growth, in words.
fn trend(verdict: Trend) -> (&'static str, &'static str) {
    match verdict {
        Trend::Grows => ("bad", "grows"),
        Trend::DoesNotGrow => ("good", "does not grow"),
        Trend::TooShort => ("lawful", "too short to say"),
    }
}

/// Text as HTML, and within SVG: no marks for control characters.
fn text(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for letter in text.chars() {
        push_escaped(if letter.is_control() { '\u{fffd}' } else { letter }, &mut html);
    }
    html
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::example;
