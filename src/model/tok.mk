# tokenizer and chat
