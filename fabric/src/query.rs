//! Questions on the model: explain, reach, assert.
