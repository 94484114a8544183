//! A process on the page: its memory with the slope and its bounds, its CPU, and what it had open.

use std::fmt::Write as _;

use super::plot::{Axis, Band, Line, Plot};
use super::unit::{bytes, count};
use super::{Process, Run, reduced, text, trend};
use crate::load::result::{Growth, Sample};

/// Writes the section of a process.
pub(super) fn process(run: &Run, process: &Process, html: &mut String) {
    let Some(last) = process.samples.last() else { return };
    let name = text(&process.name);
    let first = process.samples.first().unwrap_or(last);
    let cpu = last.cpu_seconds - first.cpu_seconds;
    let highest = process.samples.iter().map(|sample| sample.rss).max().unwrap_or_default();
    let each = if run.driver.requests == 0 { 0.0 } else { cpu * 1e6 / run.driver.requests as f64 };
    let _ = writeln!(
        html,
        "<h2>The process {name}</h2><p class=\"quiet\">pid {}: {cpu:.2} s of CPU during the run, {each:.1} µs for \
         each request; memory at most {}.</p><div class=\"plots\">",
        process.pid,
        bytes(highest as f64),
    );
    memory(run, process, html);
    cpu_plot(run, process, html);
    opened(run, process, html);
    html.push_str("</div>\n");
    growths(process, html);
}

fn line(name: &str, class: &'static str, samples: &[Sample], value: impl Fn(&Sample) -> f64) -> Line {
    let points = samples.iter().map(|sample| (sample.at, value(sample))).collect();
    Line { name: name.to_owned(), class, points: reduced(points) }
}

fn memory(run: &Run, process: &Process, html: &mut String) {
    let samples = &process.samples;
    let shares: Vec<(f64, f64)> =
        samples.iter().filter_map(|sample| Some((sample.at, sample.pss? as f64))).collect();
    let mut lines = vec![
        line("resident", "a", samples, |sample| sample.rss as f64),
        Line { name: "proportional share".into(), class: "d", points: reduced(shares) },
    ];
    let mut bands = Vec::new();
    // A verdict that there was nothing to base on has no slope to draw.
    let growth = process.slopes.iter().find(|growth| growth.resource == "rss" && growth.low < growth.high);
    if let Some((growth, slope)) = growth.and_then(|growth| Some((growth, slope(samples, growth)?))) {
        let (class, verdict) = trend(growth.verdict);
        let class = if class == "bad" { "bad" } else { "b" };
        let name = format!("slope: {verdict}");
        lines.push(Line {
            name,
            class,
            points: vec![(slope.from, slope.start), (slope.to, slope.end(growth.per_hour))],
        });
        bands.push(Band {
            class: "b",
            points: [slope.from, slope.to].map(|at| slope.band(at, growth)).to_vec(),
        });
    }
    let values = || lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    // Memory is shown from zero: a page more must not look like a cliff. Unless nobody would see anything.
    let least = if least > most * 0.9 && most - least > 1_048_576.0 { least } else { 0.0 };
    // Round in mebibytes, as they are told.
    let mebibyte = 1_048_576.0;
    let mut y = Axis::between("memory", least / mebibyte, most / mebibyte, |at| bytes(at * mebibyte));
    (y.from, y.to) = (y.from * mebibyte, y.to * mebibyte);
    y.ticks.iter_mut().for_each(|tick| tick.0 *= mebibyte);
    let title = format!("Memory of {}", process.name);
    Plot { title, x: Axis::time(run.seconds), y, bands, lines, marks: Vec::new() }.write(html);
}

/// The line of a growth over the samples that it was judged from.
struct Slope {
    from: f64,
    to: f64,
    /// The value where it begins.
    start: f64,
}

impl Slope {
    fn end(&self, per_hour: f64) -> f64 {
        self.start + (self.to - self.from) * per_hour / 3600.0
    }

    /// Where the bounds are at this time: they meet in the middle of the line, through which every slope that
    /// the samples allow goes.
    fn band(&self, at: f64, growth: &Growth) -> (f64, f64, f64) {
        let middle = f64::midpoint(self.from, self.to);
        let centre = f64::midpoint(self.start, self.end(growth.per_hour));
        let [one, other] = [growth.low, growth.high].map(|slope| centre + (at - middle) * slope / 3600.0);
        (at, one.min(other), one.max(other))
    }
}

fn slope(samples: &[Sample], growth: &Growth) -> Option<Slope> {
    let judged: Vec<&Sample> = samples.iter().filter(|sample| sample.at >= growth.from).collect();
    let (from, to) = (judged.first()?.at, judged.last()?.at);
    let mut values: Vec<u64> = judged.iter().map(|sample| sample.rss).collect();
    values.sort_unstable();
    let middle = *values.get(values.len() / 2)? as f64;
    (to > from).then(|| Slope { from, to, start: middle - growth.per_hour / 3600.0 * (to - from) / 2.0 })
}

fn cpu_plot(run: &Run, process: &Process, html: &mut String) {
    let used = |pair: &[Sample]| {
        let seconds = (pair[1].at - pair[0].at).max(1e-6);
        (pair[1].at, (pair[1].cpu_seconds - pair[0].cpu_seconds) / seconds * 100.0)
    };
    let points: Vec<(f64, f64)> = process.samples.windows(2).map(used).collect();
    let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
    Plot {
        title: format!("CPU of {}", process.name),
        x: Axis::time(run.seconds),
        y: Axis::linear("share of one processor", most, |at| format!("{at} %")),
        bands: Vec::new(),
        lines: vec![Line { name: "user and kernel".into(), class: "a", points: reduced(points) }],
        marks: Vec::new(),
    }
    .write(html);
}

fn opened(run: &Run, process: &Process, html: &mut String) {
    let samples = &process.samples;
    let lines = vec![
        line("descriptors", "a", samples, |sample| sample.fds as f64),
        line("sockets", "b", samples, |sample| sample.sockets as f64),
        line("threads", "d", samples, |sample| sample.threads as f64),
    ];
    let most = samples.iter().map(|sample| sample.fds.max(sample.threads)).max().unwrap_or_default();
    Plot {
        title: format!("Open in {}", process.name),
        x: Axis::time(run.seconds),
        y: Axis::linear("number", most as f64, |at| count(at as u64)),
        bands: Vec::new(),
        lines,
        marks: Vec::new(),
    }
    .write(html);
}

fn growths(process: &Process, html: &mut String) {
    if process.slopes.is_empty() {
        return;
    }
    html.push_str(
        "<div class=\"wide\"><table><thead><tr><th>resource</th><th>verdict</th>\
         <th class=\"number\">growth an hour</th><th class=\"number\">at least</th>\
         <th class=\"number\">at most</th><th class=\"number\">from second</th></tr></thead><tbody>\n",
    );
    for growth in &process.slopes {
        let (class, verdict) = trend(growth.verdict);
        let value = |value: f64| match growth.resource.as_str() {
            "rss" => bytes(value),
            _ => format!("{value:.1}"),
        };
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td class=\"{class}\">{verdict}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{:.0}</td></tr>",
            text(&growth.resource),
            value(growth.per_hour),
            value(growth.low),
            value(growth.high),
            growth.from,
        );
    }
    html.push_str("</tbody></table></div>\n");
}
