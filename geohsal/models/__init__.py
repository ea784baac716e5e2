"""The segmenter (encoder, decoder, error-mask decoder), its EMA teacher and its friend."""
