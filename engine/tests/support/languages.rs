//! A few sentences in languages with and without spaces, and other kinds of texts.

/// Name and text.
pub const LANGUAGES: [(&str, &str); 14] = [
    (
        "Chinese",
        "春天来了，公园里的花都开了。孩子们在草地上跑来跑去，老人们坐在长椅上晒太阳！你今天想去哪里？我们可以先去图书馆，再去河边散步。\n晚上我打算做一顿饭，请朋友们来家里吃。",
    ),
    (
        "Japanese",
        "朝ごはんを食べてから、駅まで歩きました。電車は少し遅れていましたが、会議には間に合いました。「お疲れさまでした」と彼女は言った。\n明日は雨が降るそうです。傘を忘れないでください！",
    ),
    (
        "Thai",
        "วันนี้อากาศดีมาก เราจึงไปเดินเล่นที่สวนสาธารณะ เด็กๆวิ่งเล่นกันอย่างสนุกสนาน ส่วนผู้ใหญ่นั่งคุยกันใต้ต้นไม้\nตอนเย็นเราไปกินข้าวที่ร้านริมแม่น้ำ",
    ),
    (
        "Arabic",
        "ذهبتُ صباحًا إلى السوق لشراء الخبز والفاكهة. كان الطقس جميلاً، فقررتُ أن أمشي على قدميّ. هل تعرف أين تقع المكتبة؟\nسألني رجل عن الطريق؛ فأجبته مبتسمًا.",
    ),
    (
        "Hindi",
        "आज सुबह बहुत ठंड थी। मैंने चाय बनाई और अख़बार पढ़ा। क्या आप कल बाज़ार चलेंगे? \nवहाँ ताज़ी सब्ज़ियाँ और फल मिलते हैं।",
    ),
    (
        "Korean",
        "오늘은 날씨가 참 좋습니다. 그래서 친구와 함께 공원에 갔습니다. 점심은 무엇을 먹을까요?\n저녁에는 집에서 영화를 볼 생각입니다!",
    ),
    (
        "Russian",
        "Утром выпал первый снег. Дети сразу побежали во двор, чтобы слепить снеговика. Во сколько приходит поезд?\nБабушка испекла пирог с яблоками, т. е. шарлотку.",
    ),
    (
        "Greek",
        "Το πρωί ήπιαμε καφέ στο λιμάνι. Τα καΐκια έφευγαν για τα νησιά· η θάλασσα ήταν ήρεμη. Πού θα πάμε αύριο;\nΊσως στο βουνό, αν δεν βρέξει.",
    ),
    (
        "German",
        "Die Straße war nass, weil es die ganze Nacht geregnet hatte. Größere Pfützen mussten wir umgehen. Kommst du z. B. am Samstag mit?\nDer Donaudampfschifffahrtsgesellschaftskapitän wartet nicht!",
    ),
    (
        "Turkish",
        "İstanbul'da sabah erkenden vapura bindik. Çaylar sıcacıktı, simitler de çıtır çıtır. Iğdır'a ne zaman gideceksin?\nYağmur dinince sokağa çıktık.",
    ),
    (
        "Vietnamese",
        "Sáng nay trời mưa rất to. Chúng tôi ở nhà uống cà phê và đọc sách. Bạn có muốn đi chợ không?\nBuổi chiều, trời lại nắng.",
    ),
    (
        "Hebrew",
        "הבוקר קמתי מוקדם והלכתי לים. המים היו קרים, אבל השמש זרחה. מתי תבוא לבקר אותנו?\nבערב נאכל יחד ארוחה חגיגית.",
    ),
    ("Emoji", "Great job 👩‍👩‍👧‍👦! See you 🏴󠁧󠁢󠁳󠁣󠁴󠁿 soon 👍🏽👍🏽👍🏿. Flags: 🇩🇪🇯🇵🇧🇷 and ❤️‍🔥❤️‍🔥\nKeycaps 1️⃣2️⃣3️⃣ too."),
    (
        "Markup",
        "# Title\n\n- first item, e.g. `code()`\n- second: https://example.com/a/b?c=d#e\n\n| a | b |\n|---|---|\n| 1 | 3.14 |\n\n[CLS] is a token; so is [SEP]. \"Quoted.\" (Bracketed.)",
    ),
];
