//! The machine that a run was made on, as far as it decides about numbers.

use super::result::Machine;

/// This machine; `build` is how the driver was built.
#[must_use]
pub fn here(build: &str) -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let memory = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) * 1024;
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Machine { processor, processors, memory, kernel, build: build.to_owned() }
}
