//! Plots as SVG, written by hand: axes, lines, bands and marks, in colours that the page's style decides.
//!
//! A plot is 420 units wide, so that its letters can be read where it is scaled to a phone.

use std::fmt::Write as _;

use super::text;

/// A plot.
pub(super) struct Plot {
    /// What it shows, for who cannot see it.
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) bands: Vec<Band>,
    pub(super) lines: Vec<Line>,
    /// Places on the x axis that have a name, such as where a stage begins.
    pub(super) marks: Vec<(f64, String)>,
}

/// An axis.
pub(super) struct Axis {
    /// What is on it, with its unit.
    pub(super) label: &'static str,
    pub(super) scale: Scale,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) ticks: Vec<(f64, String)>,
}

/// How values become places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Log,
    /// Quantiles: as far from the last nine to the next as from that to the one behind it.
    Tail,
}

/// A line through points in the order of x. A gap in them is a point that is no number.
pub(super) struct Line {
    pub(super) name: String,
    /// Which of the colours.
    pub(super) class: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

/// What is between two lines over the same x.
pub(super) struct Band {
    pub(super) class: &'static str,
    /// x, lower, upper.
    pub(super) points: Vec<(f64, f64, f64)>,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 34.0;

impl Scale {
    fn apply(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.max(f64::MIN_POSITIVE).log10(),
            Self::Tail => -(1.0 - value).max(1e-9).log10(),
        }
    }
}

impl Axis {
    /// From 0 to at least `most`, with about five round ticks.
    pub(super) fn linear(label: &'static str, most: f64, name: impl Fn(f64) -> String) -> Self {
        // Room for the names of marks above the highest line.
        Self::between(label, 0.0, most * 1.1, name)
    }

    /// From a round number below `least` to one above `most`.
    pub(super) fn between(label: &'static str, least: f64, most: f64, name: impl Fn(f64) -> String) -> Self {
        let least = if least.is_finite() { least } else { 0.0 };
        let most = if most.is_finite() && most > least { most } else { least + 1.0 };
        let step = round_step((most - least) / 4.0);
        let (first, last) = ((least / step).floor(), (most / step).ceil());
        let ticks = (0..=(last - first) as usize).map(|at| (first + at as f64) * step);
        let ticks = ticks.map(|at| (at, name(at))).collect();
        Self { label, scale: Scale::Linear, from: first * step, to: last * step, ticks }
    }

    /// A time axis of just this length.
    pub(super) fn time(seconds: f64) -> Self {
        let mut axis = Self::between("time of the run in seconds", 0.0, seconds, |at| format!("{at}"));
        axis.to = seconds.max(0.001);
        axis.ticks.retain(|(at, _)| *at <= axis.to * 1.001);
        axis
    }

    /// Powers of ten around these values.
    pub(super) fn log(label: &'static str, least: f64, most: f64, name: impl Fn(f64) -> String) -> Self {
        let least = if least.is_finite() && least > 0.0 { least } else { 1.0 };
        let most = if most.is_finite() { most.max(least) } else { least };
        let first = least.log10().floor();
        let last = most.log10().ceil().max(first + 1.0);
        let ticks = (0..=(last - first) as i32).map(|at| 10_f64.powi(first as i32 + at));
        let ticks = ticks.map(|at| (at, name(at))).collect();
        Self { label, scale: Scale::Log, from: 10_f64.powf(first), to: 10_f64.powf(last), ticks }
    }

    /// Quantiles up to the last that this many samples can tell.
    pub(super) fn tail(samples: u64) -> Self {
        let nines = (samples.max(10) as f64).log10().clamp(1.0, 6.0);
        let all = [
            (0.0, "0"),
            (0.5, "50"),
            (0.9, "90"),
            (0.99, "99"),
            (0.999, "99.9"),
            (0.9999, "99.99"),
            (0.99999, "99.999"),
            (0.999_999, "99.9999"),
        ];
        let to = 1.0 - 10_f64.powf(-nines);
        let ticks = all.into_iter().filter(|(at, _)| *at <= to + 1e-9);
        let ticks = ticks.map(|(at, name)| (at, name.to_owned())).collect();
        Self { label: "percentile of requests, in %", scale: Scale::Tail, from: 0.0, to, ticks }
    }

    fn place(&self, value: f64) -> f64 {
        let (from, to) = (self.scale.apply(self.from), self.scale.apply(self.to));
        (self.scale.apply(value) - from) / (to - from)
    }
}

/// 1, 2 or 5 times a power of ten, at least this.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-12).log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= least * 0.999);
    factor.unwrap_or(10.0) * power
}

impl Plot {
    /// Whether there is anything to be seen.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.points.is_empty())
    }

    /// Writes the plot with its legend.
    pub(super) fn write(&self, html: &mut String) {
        if self.is_empty() {
            return;
        }
        let title = text(&self.title);
        let _ = write!(
            html,
            "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{title}\">"
        );
        self.axes(html);
        for band in &self.bands {
            self.band(band, html);
        }
        for line in &self.lines {
            self.line(line, html);
        }
        html.push_str("</svg><p class=\"legend\">");
        for line in self.lines.iter().filter(|line| !line.points.is_empty()) {
            let _ = write!(html, "<span><i class=\"{}\"></i>{}</span> ", line.class, text(&line.name));
        }
        html.push_str("</p></figure>\n");
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value).clamp(0.0, 1.0) * (HEIGHT - BOTTOM - TOP)
    }

    fn axes(&self, html: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (at, name) in &self.y.ticks {
            let y = self.y(*at);
            let _ = write!(
                html,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 5.0,
                y + 3.5,
                text(name)
            );
        }
        for (at, name) in &self.x.ticks {
            let x = self.x(*at);
            // A label in the corner would be cut off.
            let class = if x > right - 14.0 { "end" } else { "middle" };
            let _ = write!(
                html,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>\
                 <text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                bottom + 13.0,
                text(name)
            );
        }
        for (at, name) in &self.marks {
            let x = self.x(*at);
            let _ = write!(
                html,
                "<path class=\"mark\" d=\"M{x:.1} {TOP}V{bottom}\"/>\
                 <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 3.0,
                TOP + 10.0,
                text(name)
            );
        }
        let _ = write!(
            html,
            "<text class=\"label\" x=\"{LEFT}\" y=\"10\">{}</text>\
             <text class=\"label end\" x=\"{right}\" y=\"{:.1}\">{}</text>",
            text(self.y.label),
            HEIGHT - 6.0,
            text(self.x.label)
        );
    }

    fn line(&self, line: &Line, html: &mut String) {
        let mut path = String::new();
        let mut pen = 'M';
        for (x, y) in &line.points {
            if !(x.is_finite() && y.is_finite()) {
                pen = 'M';
                continue;
            }
            let _ = write!(path, "{pen}{:.1} {:.1}", self.x(*x), self.y(*y));
            pen = 'L';
        }
        let _ = write!(html, "<path class=\"line {}\" d=\"{path}\"/>", line.class);
    }

    fn band(&self, band: &Band, html: &mut String) {
        let upper = band.points.iter().map(|(x, _, upper)| (*x, *upper));
        let lower = band.points.iter().rev().map(|(x, lower, _)| (*x, *lower));
        let mut path = String::new();
        for (at, (x, y)) in upper.chain(lower).enumerate() {
            let pen = if at == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{pen}{:.1} {:.1}", self.x(x), self.y(y));
        }
        let _ = write!(html, "<path class=\"band {}\" d=\"{path}Z\"/>", band.class);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (least, step) in [(0.3, 0.5), (1.0, 1.0), (23.0, 50.0), (6e6, 1e7), (0.0, 1e-12)] {
            assert!((round_step(least) / step - 1.0).abs() < 1e-9, "{least}: {}", round_step(least));
        }
    }

    #[test]
    fn nines_are_equally_far_apart() {
        let axis = Axis::tail(100_000);
        let places: Vec<f64> = [0.0, 0.9, 0.99, 0.999, 0.9999].map(|at| axis.place(at)).to_vec();
        for pair in places.windows(2) {
            assert!((pair[1] - pair[0] - 0.2).abs() < 1e-9, "{places:?}");
        }
        assert_eq!(axis.ticks.last().map(|(_, name)| name.as_str()), Some("99.999"));
    }

    #[test]
    fn axes_hold_their_values_whatever_these_are() {
        let name = |at: f64| at.to_string();
        for (least, most) in [(0.0, 0.0), (3.0, 3.0), (1e-9, 1e12), (f64::NAN, f64::INFINITY), (7.0, 1.0)] {
            for axis in [Axis::between("", least, most, name), Axis::log("", least, most, name)] {
                assert!(axis.from < axis.to && axis.ticks.len() >= 2, "{least} {most}");
                assert!(axis.ticks.len() < 30 && axis.place(most.clamp(axis.from, axis.to)).is_finite());
            }
        }
    }
}
