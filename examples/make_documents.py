"""Writes `examples/documents/larchfield-handbook.pdf` from `examples/handbook.txt`.

Run again after changing the text: `pip install fpdf2`, then `python examples/make_documents.py`.
The result is the same byte for byte. `tarsiers.html`, its neighbour, is written by hand.
"""

import io
import math
from datetime import UTC, datetime
from pathlib import Path

from fpdf import FPDF
from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
WOODS = (
    ("Timber", "Colour", "Density in kg/m3", "Price per sheet", "Used for"),
    ("Sycamore", "creamy white", "615", "9 euros", "sky, skin, shading"),
    ("Holly", "pure white", "780", "14 euros", "stars, snow, eyes"),
    ("Larch", "reddish brown", "590", "7 euros", "roofs, ships"),
    ("Walnut", "dark brown", "640", "16 euros", "shadows, frames"),
    ("Bog oak", "black", "950", "38 euros", "outlines, night"),
    ("Pear", "pink", "700", "12 euros", "brick, evening light"),
    ("Yew", "orange", "670", "18 euros", "flames, fruit"),
    ("Green poplar", "green", "420", "22 euros", "leaves, water"),
)
MOISTURE = ((0, 19.5), (2, 16.8), (4, 14.6), (7, 12.1), (10, 10.2), (14, 9.1), (18, 8.3), (21, 8.0))


class Handbook(FPDF):
    """A4 pages in Helvetica with a running title and a page number."""

    def __init__(self) -> None:
        super().__init__(format="A4")
        self.set_margins(24, 22, 24)
        self.set_auto_page_break(True, margin=22)
        self.set_creation_date(datetime(2026, 11, 23, tzinfo=UTC))
        self.set_title("The Larchfield Handbook of Tarsia")

    def footer(self) -> None:
        self.set_y(-15)
        self.set_font("Helvetica", size=9)
        self.cell(0, 6, f"The Larchfield Handbook of Tarsia - {self.page_no()}", align="C")

    def title_line(self, text: str) -> None:
        self.set_font("Helvetica", "B", 22)
        self.multi_cell(0, 11, text, new_x="LMARGIN", new_y="NEXT")
        self.ln(2)

    def heading(self, text: str) -> None:
        self.ln(3)
        self.set_font("Helvetica", "B", 14)
        self.multi_cell(0, 8, text, new_x="LMARGIN", new_y="NEXT")
        self.ln(1)

    def paragraph(self, text: str) -> None:
        self.set_font("Helvetica", size=11)
        self.multi_cell(0, 5.6, text, align="J", new_x="LMARGIN", new_y="NEXT")
        self.ln(2)


def main() -> None:
    pdf = Handbook()
    pdf.add_page()
    for block in (HERE / "handbook.txt").read_text().split("\n\n"):
        for line in block.strip().split("\n"):
            draw(pdf, line)
    target = HERE / "documents" / "larchfield-handbook.pdf"
    pdf.output(str(target))
    print(f"{target}: {pdf.pages_count} pages, {target.stat().st_size:,} bytes")


def draw(pdf: Handbook, line: str) -> None:
    """One line of the source: "# " title, "## " heading, "!name" a figure or a page break, else prose."""
    figures = {"!picture": picture, "!table": table, "!chart": chart, "!page": Handbook.add_page}
    if line in figures:
        figures[line](pdf)
    elif line.startswith("## "):
        pdf.heading(line[3:])
    elif line.startswith("# "):
        pdf.title_line(line[2:])
    else:
        pdf.paragraph(line)


def picture(pdf: Handbook) -> None:
    """The star pattern as a raster picture, with its caption."""
    side = 480
    image = Image.new("RGB", (side, side), (232, 216, 184))
    pen = ImageDraw.Draw(image)
    middle = side / 2
    woods = ((92, 60, 36), (178, 98, 58), (240, 228, 205), (38, 32, 28))
    for point in range(16):
        a, b = point * math.pi / 8, (point + 1) * math.pi / 8
        reach = [220 if at % 2 == 0 else 110 for at in (point, point + 1)]
        corners = [
            (middle + r * math.cos(t), middle + r * math.sin(t)) for r, t in zip(reach, (a, b), strict=True)
        ]
        pen.polygon([(middle, middle), *corners], fill=woods[point % 4], outline=(60, 44, 30))
    pen.ellipse([middle - 46, middle - 46, middle + 46, middle + 46], fill=(214, 160, 72))
    data = io.BytesIO()
    image.save(data, "PNG")
    data.seek(0)
    pdf.image(data, x=75, w=60)
    pdf.set_font("Helvetica", "I", 9)
    pdf.multi_cell(0, 5, "Figure 1. The star pattern, 17 pieces.", align="C", new_x="LMARGIN", new_y="NEXT")


def table(pdf: Handbook) -> None:
    pdf.set_font("Helvetica", size=9.5)
    with pdf.table(col_widths=(20, 22, 26, 24, 34), line_height=6) as rows:
        for cells in WOODS:
            row = rows.row()
            for cell in cells:
                row.cell(cell)
    pdf.set_font("Helvetica", "I", 9)
    pdf.multi_cell(0, 6, "Table 1. The timbers of the workshop.", align="C", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(2)


def chart(pdf: Handbook) -> None:
    """Moisture over time as a line chart drawn with vectors."""
    left, top, width, height = 45.0, pdf.get_y() + 4, 120.0, 55.0
    pdf.set_font("Helvetica", size=8)
    pdf.set_draw_color(90)
    for percent in (8, 12, 16, 20):
        y = top + height * (20 - percent) / 14
        pdf.line(left, y, left + width, y)
        pdf.text(left - 9, y + 1, f"{percent} %")
    for day in (0, 7, 14, 21):
        pdf.text(left + width * day / 21 - 4, top + height + 5, f"day {day}")
    points = [(left + width * day / 21, top + height * (20 - wet) / 14) for day, wet in MOISTURE]
    pdf.set_draw_color(150, 70, 30)
    pdf.set_line_width(0.8)
    pdf.polyline(points)
    pdf.set_line_width(0.2)
    pdf.set_y(top + height + 9)
    pdf.set_font("Helvetica", "I", 9)
    caption = "Figure 2. Moisture content of walnut in the drying room."
    pdf.multi_cell(0, 6, caption, align="C", new_x="LMARGIN", new_y="NEXT")


if __name__ == "__main__":
    main()
