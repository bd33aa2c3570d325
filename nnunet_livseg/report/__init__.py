"""Measurements for people: self-contained HTML pages with figures drawn as SVG."""
