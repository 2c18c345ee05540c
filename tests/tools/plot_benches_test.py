"""tools/plot_benches.py makes a table and well-formed plots of made-up results."""

import contextlib
import importlib.util
import io
import json
import pathlib
import re
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml

SOURCE = pathlib.Path(sys.argv.pop(1)) / "tools" / "plot_benches.py"
spec = importlib.util.spec_from_file_location("plot_benches", SOURCE)
plots = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plots)

HEAD = (
    "batch,pool_percent,prefetch,tokens_per_s,hit_rate,misses_per_token,stall_ms_per_token,"
    "disk_ms_per_token,demand_mb_per_token,prefetched_mb_per_token,wasted_share\n"
)
ROWS = """1,0,"in memory",6000,1,0,0,0,0,0,0
1,25,"off",400,0.5,12,1.5,0.4,1.2,0,0
1,25,"all, no budget",500,0.6,10,1.2,0.3,1.0,0.7,0.25
1,100,"off",6100,1,0,0,0,0,0,0
"""


def entry(name, **values):
    return {"name": name, "run_type": "iteration", "real_time": 2.0, "cpu_time": 1.0,
            "time_unit": "us", **values}


class PlotBenchesTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.results = pathlib.Path(self.folder.name)
        (self.results / "end_to_end.csv").write_text(HEAD + ROWS)
        self.write("gating", [entry("gate/qwen/threads:1/rows:1/real_time", of_read=0.75),
                              entry("gate/qwen/threads:1/rows:8/real_time", of_read=0.5)])
        self.write("expert_pool", [entry("layer/skewed/lru/rows:1", per_expert=2.5e-7,
                                         hit_rate=0.93)])

    def tearDown(self):
        self.folder.cleanup()

    def write(self, name, entries):
        (self.results / f"{name}.json").write_text(json.dumps({"benchmarks": entries}))

    def run_all(self):
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            plots.main([str(self.results), str(self.results / "images")])
        return told.getvalue()

    def test_the_table_has_every_row_with_its_bound(self):
        table = self.run_all()
        self.assertIn("| 1 | 25 % | all, no budget | 500 | 0.600 | 10.00 | 1.200 | 0.300 |", table)
        self.assertIn("| 1 | all in memory | in memory | 6,000 |", table)
        self.assertIn("75 % of reading memory", table)
        self.assertIn("250 ns an expert, hits 0.930", table)

    def test_plots_are_well_formed_and_name_what_they_show(self):
        self.run_all()
        images = sorted((self.results / "images").glob("*.svg"))
        self.assertEqual(len(images), 5)
        for image in images:
            self.assertTrue(xml.parse(image).getroot().tag.endswith("svg"), image)
        speed = (self.results / "images" / "expert-memory-speed.svg").read_text()
        for text in ("tokens/s", "in memory", "all, no budget", "prefers-color-scheme: dark"):
            self.assertIn(text, speed)

    def test_a_larger_value_is_drawn_higher(self):
        svg = plots.bar_chart("t", "u", {"a": {"x": 1.0}, "b": {"x": 3.0}})
        heights = [float(h) for h in re.findall(r'height="([0-9.]+)" fill="#', svg)]
        self.assertEqual(len(heights), 2)
        self.assertAlmostEqual(heights[1], 3 * heights[0], delta=0.2)

    def test_ticks_enclose_the_values(self):
        self.assertEqual(plots.log_ticks(230, 8100)[0], 200)
        self.assertEqual(plots.log_ticks(230, 8100)[-1], 10000)
        for largest in (0.003, 1.0, 7.3, 999.0):
            ticks = plots.linear_ticks(largest)
            self.assertGreaterEqual(ticks[-1], largest * 0.999)
            self.assertTrue(3 <= len(ticks) <= 7, (largest, ticks))

    def test_no_results_are_an_error_that_names_the_file(self):
        (self.results / "end_to_end.csv").write_text(HEAD)
        with self.assertRaisesRegex(ValueError, "end_to_end.csv: no rows"):
            self.run_all()


if __name__ == "__main__":
    unittest.main()
