//! Plots as SVG text.

use anyhow::{Result, anyhow};
use bindery::simulate::Moment;
use plotters::coord::Shift;
use plotters::prelude::*;

/// Red, green, blue.
pub(super) type Rgb = (u8, u8, u8);

const SIZE: (u32, u32) = (600, 260);
const FONT: &str = "sans-serif";
/// Points that a line of this width can show.
const MAX_POINTS: usize = 600;

/// A line over numbers.
pub(super) struct Line {
    pub(super) points: Vec<(f64, f64)>,
    pub(super) color: Rgb,
}

/// Named bars.
pub(super) struct Bars {
    pub(super) bars: Vec<(String, f64, Rgb)>,
}

/// As many of the moments as a plot can show, evenly chosen.
pub(super) fn thinned(moments: &[Moment]) -> Vec<Moment> {
    let stride = moments.len().div_ceil(MAX_POINTS).max(1);
    moments.iter().step_by(stride).copied().collect()
}

/// Parts of a whole, in percent, stacked over time.
pub(super) fn stacked<const N: usize>(stack: &[(f64, [f64; N])], colors: [Rgb; N], x_label: &str) -> Result<String> {
    draw(|area| {
        let end = stack.last().map_or(1.0, |(x, _)| *x).max(1e-9);
        let mut chart = frame(area, 0.0..end, 0.0..100.0)?;
        // The sum of all parts first, then one part less: each covers what is not its own.
        for parts in (1..=N).rev() {
            let sums = stack.iter().map(|(x, values)| (*x, values[..parts].iter().sum::<f64>()));
            chart.draw_series(AreaSeries::new(sums, 0.0, rgb(colors[parts - 1]).filled())).map_err(failed)?;
        }
        mesh(&mut chart, x_label)
    })
}

/// Lines; with `doubling`, each step to the right is twice the number.
pub(super) fn lines(lines: &[Line], x_label: &str, doubling: bool) -> Result<String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = |value: fn(&(f64, f64)) -> f64| points().map(value).fold(1e-9, f64::max);
    let (right, top) = (most(|point| point.0), most(|point| point.1));
    draw(|area| {
        if doubling {
            let mut chart = frame(area, (1.0..right).log_scale().base(2.0), 0.0..1.1 * top)?;
            mesh(&mut chart, x_label)?;
            draw_lines(&mut chart, lines, true)
        } else {
            let mut chart = frame(area, 0.0..right, 0.0..1.1 * top)?;
            mesh(&mut chart, x_label)?;
            draw_lines(&mut chart, lines, false)
        }
    })
}

/// Horizontal bars with their values.
pub(super) fn bars(bars: &Bars) -> Result<String> {
    draw(|area| {
        let top = bars.bars.iter().map(|(_, value, _)| *value).fold(1e-9, f64::max);
        let (left, right) = (150, SIZE.0 as i32 - 80);
        let height = (SIZE.1 as i32 - 20) / bars.bars.len().max(1) as i32;
        let text = (FONT, 13).into_font().color(&BLACK);
        for (i, (name, value, color)) in bars.bars.iter().enumerate() {
            let (y, thick) = (10 + i as i32 * height, (height * 2 / 3).min(36));
            let end = left + (f64::from(right - left) * value / top) as i32;
            let bar = Rectangle::new([(left, y), (end, y + thick)], rgb(*color).filled());
            area.draw(&bar).map_err(failed)?;
            area.draw(&Text::new(name.clone(), (6, y + thick / 2 - 7), text.clone())).map_err(failed)?;
            let value = if *value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") };
            area.draw(&Text::new(value, (end + 6, y + thick / 2 - 7), text.clone())).map_err(failed)?;
        }
        Ok(())
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(plot: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        plot(&area)?;
        area.present().map_err(failed)?;
    }
    // The size comes from the page: the drawing only says what shape it is.
    let (width, height) = SIZE;
    Ok(svg.replacen(&format!("width=\"{width}\" height=\"{height}\" "), "", 1))
}

fn frame<'a, 'b, X: plotters::coord::ranged1d::AsRangedCoord<Value = f64>>(
    area: &'a Area<'b>,
    x: X,
    y: std::ops::Range<f64>,
) -> Result<ChartContext<'a, SVGBackend<'b>, Cartesian2d<X::CoordDescType, plotters::coord::types::RangedCoordf64>>>
where
    X::CoordDescType: plotters::coord::ranged1d::ValueFormatter<f64>,
{
    let mut builder = ChartBuilder::on(area);
    builder.margin(8).x_label_area_size(38).y_label_area_size(44);
    builder.build_cartesian_2d(x, y).map_err(failed)
}

fn mesh<'b, X>(
    chart: &mut ChartContext<'_, SVGBackend<'b>, Cartesian2d<X, plotters::coord::types::RangedCoordf64>>,
    x_label: &str,
) -> Result<()>
where
    X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh()
        .x_desc(x_label)
        .light_line_style(TRANSPARENT)
        .label_style((FONT, 12))
        .axis_desc_style((FONT, 12));
    mesh.draw().map_err(failed)
}

fn draw_lines<'b, X: Ranged<ValueType = f64>>(
    chart: &mut ChartContext<'_, SVGBackend<'b>, Cartesian2d<X, plotters::coord::types::RangedCoordf64>>,
    lines: &[Line],
    dots: bool,
) -> Result<()> {
    for line in lines {
        let style = rgb(line.color).stroke_width(2);
        chart.draw_series(LineSeries::new(line.points.iter().copied(), style)).map_err(failed)?;
        if dots {
            let dots = line.points.iter().map(|&point| Circle::new(point, 3, rgb(line.color).filled()));
            chart.draw_series(dots).map_err(failed)?;
        }
    }
    Ok(())
}

fn rgb((r, g, b): Rgb) -> RGBColor {
    RGBColor(r, g, b)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing a plot: {error}")
}
