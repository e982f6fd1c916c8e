"""A picture of ratios."""

from pathlib import Path


def draw(ratios: dict[str, float], title: str, target: Path) -> None:
    """Bars of ratios; right of the line at 1 ours is faster."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.35 * len(ratios)), layout="constrained")
    bars = axes.barh(list(ratios)[::-1], list(ratios.values())[::-1])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(title=title, xlabel="times as fast as the peer", xlim=(0, 1.15 * max(1.0, *ratios.values())))
    figure.savefig(target)
    plt.close(figure)
    print(f"  drawn in {target}")
