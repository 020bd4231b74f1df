//! Drills on real binaries: playground, crashes, power cuts, and fuzz targets.
