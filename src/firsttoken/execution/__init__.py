"""How a model is run: in memory, streamed layer by layer, many measures sharing one reading, tensor parallel."""
