//! Gradients of tensors: graphs that are recorded by walking other graphs.
